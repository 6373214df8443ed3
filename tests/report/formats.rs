//! What text, Markdown and JSON say.

use deadpeer::measure::report::figures::{Figure, Figures};
use deadpeer::measure::report::{Format, Options, ReportError, names, render};
use deadpeer::measure::result::{ResultFile, Way};
use serde_json::Value;

use crate::sample;

fn said(results: &[ResultFile], format: Format) -> String {
    render(results, format, &Options::default()).unwrap()
}

/// The row that begins with a name, in the table behind a heading.
fn row(report: &str, heading: &str, name: &str) -> Vec<String> {
    let (_, section) = report.split_once(&format!("# {heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let row = section.lines().find(|line| line.starts_with(&format!("| {name} |")));
    let row = row.unwrap_or_else(|| panic!("no row of {name} under {heading}"));
    row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn a_sample_is_the_same_every_time_and_survives_its_file() {
    for make in [sample::whole, sample::few, sample::without_comparison, sample::without_experiment] {
        let result = make(1);
        assert_eq!(ResultFile::parse(&result.to_json()).unwrap(), result);
        assert_eq!(make(1).to_json(), result.to_json());
        assert_ne!(make(2).to_json(), result.to_json());
    }
    assert_ne!(sample::elsewhere(1).machine, sample::whole(1).machine);
}

#[test]
fn every_way_subject_doubt_and_circumstance_is_in_text_and_markdown() {
    let result = sample::whole(1);
    for format in [Format::Text, Format::Markdown] {
        let report = said(std::slice::from_ref(&result), format);
        for way in Way::ALL {
            assert!(report.contains(way.as_str()), "{way}");
        }
        for subject in &result.comparison.as_ref().unwrap().subjects {
            for words in [&subject.name, &subject.what, &subject.gives_up] {
                let words =
                    if format == Format::Markdown { words.replace('_', r"\_") } else { words.clone() };
                assert!(report.contains(&words), "{words}");
            }
        }
        for doubt in &result.doubts {
            assert!(report.contains(&doubt.text) && report.contains(&doubt.remedy), "{doubt:?}");
        }
        for words in
            ["AMD EPYC", "6.12.9-amd64", "1,048,576 descriptors", "seed 1", "'a result.json'", "2 cores"]
        {
            assert!(report.contains(words), "{words}");
        }
        for figure in Figure::ALL {
            assert!(report.contains(figure.title()), "{}", figure.title());
        }
        assert!(report.contains("path-loss was not run: network namespaces need root"));
    }
}

#[test]
fn what_was_not_measured_or_is_not_carried_is_a_dash() {
    let report = said(&[sample::few(1)], Format::Markdown);
    let fin = row(&report, "Latency", "fin");
    // way, basis, count, min, mean, p50, p90, p99, p99.9, p99.99, max
    assert_eq!((&fin[2][..], &fin[6..10]), ("40", &["-", "-", "-", "-"].map(str::to_owned)[..]));
    assert!([3, 4, 5, 10].iter().all(|column| fin[*column] != "-"), "{fin:?}");
    assert!(row(&report, "Deaths and verdicts", "path-loss")[1..].iter().all(|cell| cell == "-"));
    let whole = said(&[sample::whole(1)], Format::Markdown);
    assert_eq!(row(&whole, "CPU", "floor")[4], "-");
    assert!(row(&whole, "A storm", "tokio-uring")[1].contains("4 of 5 rounds"));
}

#[test]
fn counts_are_those_of_the_file() {
    let result = sample::whole(1);
    let report = said(std::slice::from_ref(&result), Format::Markdown);
    let silence = row(&report, "Deaths and verdicts", "silence");
    assert_eq!(silence[1..7], ["12,000", "11,998", "0", "0", "0", "2"]);
    assert_eq!(row(&report, "Deaths and verdicts", "stop")[3], "1");
    assert_eq!(row(&report, "Deaths and verdicts", "data-rst")[5], "1");
}

#[test]
fn ratios_are_taken_within_each_round_and_only_then_summed_up() {
    let mut result = sample::whole(1);
    let comparison = result.comparison.as_mut().unwrap();
    // The median of the ratios is 3, that of the values' medians would be 40/20 = 2.
    let cost = [("deadpeer", [10, 30, 40, 60, 80]), ("epoll", [5, 10, 20, 15, 20])];
    for run in &mut comparison.runs {
        for (name, values) in cost {
            if run.subject == name {
                let beats = run.beats.as_mut().unwrap();
                (beats.count, beats.process_ns) = (10, 10 * values[run.round as usize]);
            }
        }
    }
    let figures = Figures::of(&result, None).unwrap();
    let comparison = figures.comparison.as_ref().unwrap();
    assert_eq!(comparison.base, Some("epoll"));
    let cell = comparison.find("deadpeer").unwrap().cell(Figure::Cpu);
    let ratio = cell.ratio.unwrap();
    assert_eq!((ratio.min, ratio.median, ratio.max), (2.0, 3.0, 4.0));
    assert_eq!(cell.value.unwrap().median, 40.0);
    let base = comparison.find("epoll").unwrap();
    let ratios: Vec<_> = Figure::ALL.into_iter().filter_map(|figure| base.cell(figure).ratio).collect();
    assert!(ratios.len() >= 10, "{ratios:?}");
    for ratio in ratios {
        assert_eq!((ratio.min, ratio.max), (1.0, 1.0));
    }
}

#[test]
fn the_base_is_epoll_or_another_yardstick_or_whoever_is_named() {
    let mut result = sample::whole(1);
    let base = |result: &ResultFile, name: Option<&str>| {
        let figures =
            Figures::of(result, name).map(|figures| figures.comparison.unwrap().base.map(str::to_owned));
        figures.map(Option::unwrap)
    };
    assert_eq!(base(&result, Some("tokio")).unwrap(), "tokio");
    let Err(ReportError::Base { names, .. }) = base(&result, Some("Tokio")) else { panic!("taken") };
    assert_eq!(names.len(), 12);
    result.comparison.as_mut().unwrap().subjects.retain(|subject| subject.name != "epoll");
    assert_eq!(base(&result, None).unwrap(), "epoll, low-water trick");
    result.comparison.as_mut().unwrap().subjects.retain(|subject| subject.ours);
    assert_eq!(base(&result, None).unwrap(), "deadpeer");
}

#[test]
fn two_results_stand_side_by_side_with_their_ratio_and_differences() {
    let (first, second) = (sample::whole(1), sample::elsewhere(2));
    let report = said(&[first.clone(), second.clone()], Format::Markdown);
    for words in ["machine.kernel", "6.1.0-42-amd64", "machine.cores", "experiment.connections"] {
        assert!(report.replace('\\', "").contains(words), "{words}");
    }
    let p50 = &row(&report, "Detection", "fin")[1];
    let [a, b] =
        [&first, &second].map(|result| result.experiment.as_ref().unwrap().ways[0].latency.percentile(50.0));
    let ratio = b.unwrap() as f64 / a.unwrap() as f64;
    let shown: f64 = p50.split("<br>").nth(1).unwrap().parse().unwrap();
    assert!((shown - ratio).abs() < 0.01, "{shown} for {ratio}");
    let same = said(&[first.clone(), first], Format::Text);
    assert!(same.contains("settings were the same"), "{same}");
    said(&[sample::without_comparison(1), sample::without_experiment(1)], Format::Text);
}

#[test]
fn json_has_whole_nanoseconds_the_ratios_and_nulls() {
    let report: Value = serde_json::from_str(&said(&[sample::whole(1)], Format::Json)).unwrap();
    let result = &report["results"][0];
    let ways = result["detection"]["ways"].as_array().unwrap();
    assert_eq!(ways.len(), 8);
    assert!(ways[0]["latency"]["p99_ns"].is_u64() && ways[0]["latency"]["p9999_ns"].is_null());
    let rows = result["comparison"]["rows"].as_array().unwrap();
    let cpu = &rows[0]["cells"][0];
    assert_eq!((&cpu["figure"], cpu["value"]["median"].is_i64()), (&Value::from("cpu"), true));
    assert!(cpu["ratio"]["median"].as_f64().unwrap() < 0.03);
    assert!(report.get("changes").is_none());

    let two = said(&[sample::whole(1), sample::elsewhere(2)], Format::Json);
    let two: Value = serde_json::from_str(&two).unwrap();
    let changes = two["changes"].as_array().unwrap();
    let fin = changes.iter().find(|change| change["name"] == "detect.fin.p99").unwrap();
    let [first, second, ratio] = ["first", "second", "ratio"].map(|field| fin[field].as_f64().unwrap());
    assert!((second / first - ratio).abs() < 1e-9);
    assert!(two["differences"].as_array().unwrap().iter().any(|row| row["what"] == "machine.cores"));
}

#[test]
fn every_name_that_is_listed_can_be_found() {
    for result in [sample::whole(1), sample::few(1), sample::without_experiment(1)] {
        let figures = Figures::of(&result, None).unwrap();
        let all = names::all(&figures);
        assert!(all.len() > 100);
        for name in all {
            assert!(names::find(&figures, &name).is_some(), "{name}");
        }
    }
}

#[test]
fn what_a_file_says_cannot_steer_a_terminal_or_break_a_table() {
    let mut result = sample::whole(1);
    let evil = "\x1b[2J\r|</table>\n# \u{202e}`".to_owned() + &"x".repeat(70_000);
    result.machine.cpu = evil.clone();
    result.doubts[0].text = evil.clone();
    result.experiment.as_mut().unwrap().ways[7].not_run = Some(evil.clone());
    let comparison = result.comparison.as_mut().unwrap();
    comparison
        .runs
        .iter_mut()
        .filter(|run| run.subject == "epoll")
        .for_each(|run| run.subject.clone_from(&evil));
    comparison.subjects.iter_mut().filter(|subject| subject.name == "epoll").for_each(|subject| {
        subject.name.clone_from(&evil);
        subject.gives_up.clone_from(&evil);
    });
    for format in [Format::Text, Format::Markdown] {
        for results in [vec![result.clone()], vec![result.clone(), sample::whole(2)]] {
            for width in [None, Some(0), Some(40), Some(u16::MAX)] {
                let options = Options { width, ..Options::default() };
                let report = render(&results, format, &options).unwrap();
                let steers = report.chars().find(|letter| letter.is_control() && *letter != '\n');
                assert_eq!(steers, None);
                assert!(!report.contains('\u{202e}'));
                // Within a fence nothing is a mark; and no name can close one.
                let marked: String = report.split("```").step_by(2).collect();
                assert!(format == Format::Text || !marked.contains("</table>"));
                assert_eq!(report.matches("```").count() % 2, 0);
            }
        }
    }
}

#[test]
fn a_terminal_gets_no_line_that_it_would_break() {
    let options = Options { width: Some(100), bold: true, ..Options::default() };
    let report = render(&[sample::whole(1)], Format::Text, &options).unwrap();
    assert!(report.contains("\x1b[1m"));
    for line in report.lines() {
        let shown = line.replace("\x1b[1m", "").replace("\x1b[0m", "");
        assert!(shown.chars().count() <= 100, "{shown}");
    }
    assert!(!render(&[sample::whole(1)], Format::Text, &Options::default()).unwrap().contains('\x1b'));
}
