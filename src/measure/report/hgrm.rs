//! The percentile spectrum (`.hgrm`) for HdrHistogram's plotters.
//!
//! Four columns, `Value Percentile TotalCount 1/(1-Percentile)`, five lines for each halving of the distance to 100 %,
//! and a footer. Values are microseconds with three decimals, so no nanosecond is lost. The last lines stand on few
//! samples: their `TotalCount` says on how many.

use std::fmt::Write;

use super::series::Series;

/// Lines for each halving of the distance to 100 %, as in HdrHistogram.
const STEPS: u32 = 5;

pub fn render(series: &Series) -> String {
    let histogram = series.recorded.histogram();
    let micros = |nanos: f64| nanos / 1_000.0;
    let max = series.recorded.max().unwrap_or(0);
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments| {
        let written = text.write_fmt(line).and_then(|()| text.write_char('\n'));
        written.expect("writing into memory does not fail");
    };
    line(format_args!(
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    ));
    let mut total = 0;
    for step in histogram.iter_quantiles(STEPS) {
        total += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        // The upper end of a bucket may lie beyond the greatest value.
        let value = micros(step.value_iterated_to().min(max) as f64);
        if quantile < 1.0 {
            line(format_args!("{value:12.3} {quantile:2.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile)));
        } else {
            line(format_args!("{value:12.3} {quantile:2.12} {total:10}"));
        }
    }
    let (mean, deviation) = (micros(histogram.mean()), micros(histogram.stdev()));
    let buckets = u64::BITS - histogram.high().leading_zeros();
    line(format_args!("#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]"));
    line(format_args!("#[Max     = {:12.3}, Total count    = {:12}]", micros(max as f64), histogram.len()));
    // The histogram has 2,048 places in its first bucket, and one more bucket for each doubling.
    line(format_args!("#[Buckets = {:12}, SubBuckets     = {:12}]", buckets.saturating_sub(10), 2_048));
    line(format_args!("#[Series  = {}, Unit = us]", super::document::plain(&series.name)));
    text
}
