//! Thresholds: which hold, which fail, and which are refused.

use deadpeer::cli::duration;
use deadpeer::measure::report::derive;
use deadpeer::measure::report::threshold::{Threshold, ThresholdError};
use deadpeer::measure::result::ResultFile;
use proptest::prelude::*;

use crate::sample;

fn parse(text: &str) -> Result<Threshold, ThresholdError> {
    Threshold::parse(text, duration::parse)
}

fn ask(results: &[ResultFile], text: &str) -> Result<Option<String>, ThresholdError> {
    parse(text)?.failure(&derive(results, None).unwrap())
}

#[test]
fn a_threshold_fails_when_what_it_says_is_true() {
    let results = [sample::whole(1)];
    for (text, fails) in [
        ("detect.fin.p99>2ms", false),
        ("detect.fin.p99 > 2us", true),
        ("detect.fin.count<12000", false),
        ("detect.fin.count<=12000", true),
        ("detect.fin.count>=12000", true),
        ("detect.stop.missed>0", true),
        ("detect.fin.missed>0", false),
        ("detect.silence.early>1", true),
        ("detect.data-rst.misnamed>0", true),
        ("detect.fin.doubled>0", false),
        ("detect.fin.min<=0", false),
        ("injector.fin.p99>1ms", false),
        ("silence.stop.p50<1500ms", false),
        ("quality.mistakes>7", true),
        ("quality.false_verdicts>1", false),
        ("quality.mistake_rate>0.1", true),
        ("quality.detection_time.p99>2s", false),
        ("quality.mistake_duration.max>1us", true),
        ("cpu.deadpeer/epoll>0.03", false),
        ("cpu.deadpeer --wake beat/tokio<0.5", true),
        ("cpu.tokio/deadpeer<10", false),
        ("cpu.epoll/epoll.max>1", false),
        ("cpu.deadpeer>40ns", true),
        ("detect-p99.deadpeer/epoll.max>1.0", true),
        ("detect.epoll.p99>1ms", false),
        ("detect.epoll.missed>0", false),
        ("user.deadpeer>1KiB", false),
        ("user.deadpeer>100", true),
        ("kernel.epoll<=0.001MiB", true),
        ("storm.deadpeer>1s", false),
    ] {
        assert_eq!(ask(&results, text).unwrap().is_some(), fails, "{text}");
    }
}

#[test]
fn what_was_not_measured_fails_and_says_why() {
    let whole = || vec![sample::whole(1)];
    for (results, text, why) in [
        (whole(), "detect.path-loss.p99>1s", "not run: network namespaces"),
        (whole(), "detect.path-loss.missed>0", "not run"),
        (whole(), "detect.fin.p9999>1s", "a sample of 12000 does not carry it"),
        (whole(), "storm.tokio-uring>100s", "in 4 of 5 rounds only"),
        (whole(), "storm.tokio-uring/epoll>100", "in 4 of 5 rounds only"),
        (whole(), "storm.epoll/tokio-uring>100", "in 4 of 5 rounds only"),
        (whole(), "death.floor>1s", "in any round"),
        (whole(), "silence.fin.p99>1s", "no silent way"),
        (vec![sample::few(1)], "detect.fin.p90>1s", "a sample of 40"),
        (vec![sample::few(1)], "cpu.deadpeer/epoll>0.03", "no comparison"),
        (vec![sample::without_experiment(1)], "detect.fin.p99>1s", "no experiment"),
        (vec![sample::without_experiment(1)], "quality.mistakes>1", "no experiment"),
        (vec![sample::few(1), sample::whole(1)], "change.detect.fin.p99>2", "in the first result"),
    ] {
        let failure = ask(&results, text).unwrap().unwrap_or_else(|| panic!("{text} holds"));
        assert!(failure.starts_with(text) && failure.contains(why), "{text}: {failure}");
    }
}

#[test]
fn a_name_that_nothing_can_have_is_an_error_that_lists_the_names() {
    for text in [
        "detect.fn.p99>2ms",
        "detect.fin.p98>2ms",
        "detect.fin>2ms",
        "fin.p99>2ms",
        "cpu.nobody>1ns",
        "cpu.deadpeer/nobody>1",
        "injector.fin.missed>1",
        "quality.mistaks>0",
        "quality.mistakes.p99>0",
        "detect.epoll.early>0",
    ] {
        let error = ask(&[sample::whole(1)], text).unwrap_err();
        assert!(matches!(error, ThresholdError::Unknown(..)), "{text}: {error}");
        let message = error.to_string();
        for name in ["fin|rst", "p50|p90|p99", "tokio-uring", "cpu|machine", "mistake_rate"] {
            assert!(message.contains(name), "{text}: {message}");
        }
    }
}

#[test]
fn unlike_things_are_not_compared() {
    for (text, wanted) in [
        ("detect.fin.p99>2", "a duration"),
        ("detect.fin.missed>2ms", "a number without a unit"),
        ("cpu.deadpeer/epoll>3ms", "a number without a unit"),
        ("user.epoll>3ms", "a number of bytes"),
    ] {
        let message = ask(&[sample::whole(1)], text).unwrap_err().to_string();
        assert!(message.contains(wanted), "{text}: {message}");
    }
    assert!(matches!(ask(&[sample::whole(1)], "change.detect.fin.p99>2"), Err(ThresholdError::Alone(_))));
}

#[test]
fn of_two_results_the_second_is_asked_and_a_change_both() {
    let (mut good, bad) = (sample::whole(1), sample::whole(1));
    good.experiment.as_mut().unwrap().quality.mistakes = 4;
    let both = [good, bad];
    assert!(ask(&both, "quality.mistakes>4").unwrap().is_some());
    assert!(ask(&both, "change.quality.mistakes>=2").unwrap().is_some());
    assert!(ask(&both, "change.quality.mistakes>2").unwrap().is_none());
    assert!(ask(&both, "change.detect.fin.p99>1").unwrap().is_none());
}

#[test]
fn what_is_no_threshold_is_refused() {
    for text in ["", ">", "detect.fin.p99", ">2ms", "detect.fin.p99>", "detect.fin.p99=2ms"] {
        assert!(matches!(parse(text), Err(ThresholdError::Grammar(_))), "{text}");
    }
    for text in ["a>b", "a>2x", "a>-1", "a>1e999", "a>nan", "a>inf"] {
        assert!(matches!(parse(text), Err(ThresholdError::Limit(..))), "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        name in "[a-z][a-z./ -]{0,20}[a-z]", operator in "<|<=|>|>=", value in "[1-9][0-9]{0,5}(ns|us|ms|s|B|KiB|)",
    ) {
        let threshold = parse(&format!(" {name} {operator} {value}")).unwrap();
        prop_assert_eq!(threshold.to_string(), format!("{name}{operator}{value}"));
        prop_assert_eq!(parse(&threshold.to_string()).unwrap(), threshold);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-z.<>=/0-9\u{e9} -]{0,40}") {
        let _ = parse(&text);
    }
}
