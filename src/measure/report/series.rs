//! The histograms of a result by their names.

use std::borrow::Cow;

use super::figures::Figures;
use super::options::ReportError;
use crate::measure::recorded::Recorded;

/// A distribution with a name.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    /// As in thresholds: `detect.fin`, `injector.fin`, `silence.stop`, `detect.epoll`.
    pub name: String,
    /// The samples, in nanoseconds.
    pub recorded: Cow<'a, Recorded>,
}

/// All series that have samples: detection first, way by way, then subject by subject.
#[must_use]
pub fn all<'a>(figures: &Figures<'a>) -> Vec<Series<'a>> {
    let mut series = Vec::new();
    let mut add = |name: String, recorded: Cow<'a, Recorded>| {
        if recorded.count() > 0 {
            series.push(Series { name, recorded });
        }
    };
    let ways = || figures.detection.iter().flat_map(|detection| &detection.ways).map(|way| way.source);
    ways().for_each(|way| add(format!("detect.{}", way.way), Cow::Borrowed(&way.latency)));
    let comparison = figures.comparison.as_ref();
    for row in comparison.iter().flat_map(|comparison| &comparison.rows) {
        let name = &row.subject.name;
        let pooled = comparison.and_then(|comparison| comparison.pooled(name));
        pooled.into_iter().for_each(|pooled| add(format!("detect.{name}"), Cow::Owned(pooled)));
    }
    for way in ways() {
        let silence = way.silence.iter();
        silence.for_each(|silence| add(format!("silence.{}", way.way), Cow::Borrowed(silence)));
        add(format!("injector.{}", way.way), Cow::Borrowed(&way.injector_late));
    }
    let quality = figures.result.experiment.iter().map(|experiment| &experiment.quality.mistake_duration);
    quality.for_each(|duration| add("quality.mistake_duration".to_owned(), Cow::Borrowed(duration)));
    series
}

/// The series of a name, or the first one.
///
/// # Errors
///
/// When no series has the name, or there is none at all.
pub fn find<'a>(figures: &Figures<'a>, wanted: Option<&str>) -> Result<Series<'a>, ReportError> {
    named(all(figures), wanted, |series| &series.name)
}

/// The member of a name, or the first one.
pub(super) fn named<T>(
    mut all: Vec<T>,
    wanted: Option<&str>,
    name: impl Fn(&T) -> &str,
) -> Result<T, ReportError> {
    let Some(wanted) = wanted else { return all.into_iter().next().ok_or(ReportError::Empty) };
    match all.iter().position(|one| name(one) == wanted) {
        Some(place) => Ok(all.swap_remove(place)),
        None => {
            let names = all.iter().map(|one| name(one).to_owned()).collect();
            Err(ReportError::Series { wanted: wanted.to_owned(), names })
        }
    }
}
