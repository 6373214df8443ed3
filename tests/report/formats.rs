//! The content of text, Markdown, HTML and JSON.

use deadpeer::measure::log::Log;
use deadpeer::measure::report::figures::{Figure, Figures};
use deadpeer::measure::report::{Format, Options, ReportError, names, render, render_log};
use deadpeer::measure::result::{OutputKind, ResultFile, Way};
use serde_json::Value;

use crate::sample;

fn said(results: &[ResultFile], format: Format) -> String {
    render(results, format, &Options { full: true, ..Options::default() }).unwrap()
}

/// The row that begins with a name, in the table behind the last heading or summary of these words.
fn row(report: &str, heading: &str, name: &str) -> Vec<String> {
    let places = [format!("# {heading}\n"), format!("<summary>{heading}</summary>\n")];
    let section = places.iter().find_map(|place| Some(report.rsplit_once(place.as_str())?.1));
    let section = section.unwrap_or_else(|| panic!("no {heading}"));
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
    let fin = row(&report, "All percentiles", "fin");
    // way, basis, count, min, mean, p50, p90, p99, p99.9, p99.99, max
    assert_eq!((&fin[2][..], &fin[6..10]), ("40", &["-", "-", "-", "-"].map(str::to_owned)[..]));
    assert!([3, 4, 5, 10].iter().all(|column| fin[*column] != "-"), "{fin:?}");
    assert!(row(&report, "All counts, and the injector", "path-loss")[1..].iter().all(|cell| cell == "-"));
    let whole = said(&[sample::whole(1)], Format::Markdown);
    assert_eq!(row(&whole, "CPU", "floor")[4], "-");
    assert!(row(&whole, "A storm", "tokio-uring")[1].contains("4 of 5 rounds"));
}

#[test]
fn counts_are_those_of_the_file() {
    let result = sample::whole(1);
    let report = said(std::slice::from_ref(&result), Format::Markdown);
    let silence = row(&report, "All counts, and the injector", "silence");
    assert_eq!(silence[1..7], ["12,000", "11,998", "0", "0", "0", "2"]);
    assert_eq!(row(&report, "All counts, and the injector", "stop")[3], "1");
    assert_eq!(row(&report, "All counts, and the injector", "data-rst")[5], "1");
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
fn the_base_is_epoll_or_another_yardstick_or_the_one_that_is_named() {
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
    let all =
        report.lines().filter_map(|line| line.strip_prefix("<details><summary>")?.strip_suffix("</summary>"));
    let all =
        all.into_iter().find(|summary| summary.starts_with("All ") && summary.ends_with("of both")).unwrap();
    let shown = &row(&report, all, "detect.fin.p50")[3];
    let [a, b] =
        [&first, &second].map(|result| result.experiment.as_ref().unwrap().ways[0].latency.percentile(50.0));
    let ratio = b.unwrap() as f64 / a.unwrap() as f64;
    let shown: f64 = shown.parse().unwrap();
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
                let options = Options { width, full: true, ..Options::default() };
                let report = render(&results, format, &options).unwrap();
                let steers = report.chars().find(|letter| letter.is_control() && *letter != '\n');
                assert_eq!(steers, None);
                assert!(!report.contains('\u{202e}'));
                // Within a fence nothing is a mark, and no name can close a fence.
                let marked: String = report.split("```").step_by(2).collect();
                assert!(format == Format::Text || !marked.contains("</table>"));
                assert_eq!(report.matches("```").count() % 2, 0);
            }
        }
    }
}

#[test]
fn a_terminal_gets_no_line_that_it_would_break_and_no_word_is_cut() {
    let full = Options { full: true, ..Options::default() };
    let results = [vec![sample::whole(1)], vec![sample::whole(1), sample::elsewhere(2)]];
    for results in results {
        let unbroken = render(&results, Format::Text, &full).unwrap();
        assert!(!unbroken.contains('\x1b'));
        for width in [60, 80, 100] {
            let options = Options { width: Some(width), bold: true, ..full.clone() };
            let report = render(&results, Format::Text, &options).unwrap();
            assert!(report.contains("\x1b[1m"));
            let report = report.replace("\x1b[1m", "").replace("\x1b[0m", "");
            for line in report.lines() {
                assert!(line.chars().count() <= usize::from(width), "{width}: {line}");
            }
            // Bars and rules depend on the width.
            let word = |word: &&str| {
                word.chars().all(|letter| letter.is_ascii_alphanumeric() || ".-_".contains(letter))
            };
            let shown: std::collections::BTreeSet<&str> = report.split_whitespace().collect();
            let lost: Vec<_> =
                unbroken.split_whitespace().filter(word).filter(|word| !shown.contains(word)).collect();
            assert!(
                lost.iter().all(|word| word.contains("---") || word.contains("===")),
                "{width}: {lost:?}"
            );
        }
    }
}

#[test]
fn the_verdict_comes_first_and_says_in_every_format_why_it_fails() {
    let faults = "FAIL: 1 missed (stop); 1 misnamed (data-rst); 2 early (silence); 1 false verdict; no threshold asked.";
    let mut good = sample::without_comparison(1);
    for way in &mut good.experiment.as_mut().unwrap().ways {
        (way.missed, way.misnamed, way.early) = (0, 0, 0);
    }
    good.experiment.as_mut().unwrap().quality.false_verdicts = 0;
    let asked = |failure: Option<&str>| {
        let thresholds = vec![("detect.fin.p99>2ms".to_owned(), failure.map(str::to_owned))];
        Options { thresholds, ..Options::default() }
    };
    for (result, options, verdict) in [
        (sample::without_comparison(1), Options::default(), faults),
        (good.clone(), Options::default(), "PASS: 0 faults, no threshold asked."),
        (good.clone(), asked(None), "PASS: 0 faults, 1 of 1 thresholds hold."),
        (good, asked(Some("p99 is 3 ms")), "FAIL: p99 is 3 ms; 1 of 1 threshold failed."),
    ] {
        for format in [Format::Text, Format::Markdown, Format::Html] {
            let report = render(std::slice::from_ref(&result), format, &options).unwrap();
            let (_, body) = report.split_once("Verdict").unwrap();
            let body: String = body
                .lines()
                .skip_while(|line| !line.contains("PASS") && !line.contains("FAIL"))
                .take(1)
                .collect();
            let body = ["**", "<p>", "</p>", "<b class=\"good\">", "<b class=\"bad\">", "</b>"]
                .iter()
                .fold(body, |body, mark| body.replace(mark, ""));
            assert_eq!(body, verdict, "{format:?}");
        }
    }
}

#[test]
fn doubts_are_one_line_until_they_are_opened() {
    let result = [sample::whole(1)];
    let line = "3 doubts: noisy-rounds, not-measured, shared-core";
    let folded = render(&result, Format::Text, &Options::default()).unwrap();
    assert!(folded.contains(&format!("+ {line} (report --full shows this)")), "{folded}");
    assert!(!folded.contains("give the machine three cores"));
    assert!(said(&result, Format::Text).contains("give the machine three cores"));
    for format in [Format::Markdown, Format::Html] {
        assert!(said(&result, format).contains(&format!("<details><summary>{line}</summary>")), "{format:?}");
    }
}

#[test]
fn four_subjects_are_shown_and_the_others_on_demand() {
    let result = [sample::without_experiment(1)];
    let text = render(&result, Format::Text, &Options::default()).unwrap();
    let (_, tables) = text.split_once("Tables: ").unwrap();
    let rows = |name: &str| tables.lines().filter(|line| line.split("  ").next() == Some(name)).count();
    for shown in ["deadpeer", "epoll", "epoll, low-water trick", "tokio"] {
        assert!(rows(shown) >= 4, "{shown}: {tables}");
    }
    assert_eq!((rows("tokio-uring"), rows("floor")), (0, 0));
    assert!(tables.contains("+ 8 more subjects: deadpeer --wake beat"));
    let page = render(&result, Format::Html, &Options::default()).unwrap();
    let (_, chart) = page.split_once("<title id=\"ratio-cpu-t\">").unwrap();
    let (chart, _) = chart.split_once("</svg>").unwrap();
    // Each row has a name and a figure.
    assert_eq!(chart.matches("class=\"row").count(), 2 * 4);
    assert!(page.contains("ratio-cpu-more-t"));
    // Only deadpeers have a longest turn, and no ratio of it: there is no chart of a single dot.
    assert!(!page.contains("ratio-storm-turn"));
}

#[test]
fn the_injector_has_a_chart_of_its_own() {
    let page = render(&[sample::whole(1)], Format::Html, &Options::default()).unwrap();
    let chart = |id: &str| {
        page.split_once(&format!("<title id=\"{id}-t\">")).unwrap().1.split("</svg>").next().unwrap()
    };
    assert!(!chart("spectrum-network").contains("injector"));
    assert!(chart("injector").contains("injector p99: "));
}

#[test]
fn changes_are_judged_by_their_noise() {
    let first = sample::whole(1);
    let mut second = first.clone();
    let experiment = second.experiment.as_mut().unwrap();
    let slower = |way: usize, part: u64| {
        let mut latency = deadpeer::measure::recorded::Recorded::new();
        for step in first.experiment.as_ref().unwrap().ways[way].latency.histogram().iter_recorded() {
            latency.record_many(step.value_iterated_to() * part / 100, step.count_at_value());
        }
        latency
    };
    experiment.ways[0].latency = slower(0, 150);
    experiment.ways[1].latency = slower(1, 70);
    experiment.ways[2].latency = slower(2, 101);
    experiment.ways[1].missed = 1;
    let report: Value = serde_json::from_str(&said(&[first, second], Format::Json)).unwrap();
    let changes = report["changes"].as_array().unwrap();
    for (name, judged) in [
        ("detect.fin.p50", Value::from("worse")),
        ("detect.rst.p50", Value::from("better")),
        ("detect.data-rst.p50", Value::from("within-noise")),
        ("detect.rst.missed", Value::from("worse")),
        ("detect.fin.missed", Value::from("within-noise")),
        ("detect.fin.count", Value::Null),
        // A maximum stands beside its samples and is not judged.
        ("detect.fin.max", Value::Null),
        ("cpu.deadpeer/epoll", Value::from("within-noise")),
    ] {
        let change = changes.iter().find(|change| change["name"] == name).unwrap();
        assert_eq!(change["judgement"], judged, "{change}");
    }
    let max = changes.iter().find(|change| change["name"] == "detect.fin.max").unwrap();
    assert_eq!(max["samples"], serde_json::json!([12_000, 12_000]));
}

#[test]
fn two_results_of_different_engines_raise_a_doubt_and_name_engine_and_commit() {
    let first = sample::few(1);
    let mut second = first.clone();
    let engine = second.program.engine.as_mut().unwrap();
    engine.name = "epoll".to_owned();
    engine.why_not = Some("io_uring_setup: Operation not permitted".to_owned());
    for format in [Format::Text, Format::Markdown, Format::Html] {
        let report = said(&[first.clone(), second.clone()], format).replace('\\', "");
        let doubt =
            "the first result is of io_uring, the second of epoll (io_uring_setup: Operation not permitted)";
        for words in [doubt, "other-engine", "commit 5e7a6e4"] {
            assert!(report.contains(words), "{format:?}: {words}");
        }
        assert!(!said(&[first.clone(), first.clone()], format).contains("other-engine"));
    }
    let json: Value = serde_json::from_str(&said(&[first.clone(), second], Format::Json)).unwrap();
    assert_eq!(json["doubts"][0]["kind"], "other-engine");
    // An older result has neither, and the report says nothing of them.
    let mut old = serde_json::to_value(&first).unwrap();
    let program = old["program"].as_object_mut().unwrap();
    for field in ["engine", "commit"] {
        program.remove(field);
    }
    let old = ResultFile::parse(&old.to_string()).unwrap();
    let report = said(&[old], Format::Text);
    assert!(report.contains("deadpeer 0.1.0 (release), Linux "), "{report}");
}

#[test]
fn two_results_of_servers_with_different_outputs_say_so() {
    let first = sample::without_experiment(1);
    let mut second = first.clone();
    second.comparison.as_mut().unwrap().settings.output = OutputKind::Pipe;
    for format in [Format::Text, Format::Markdown, Format::Html] {
        let report = said(&[first.clone(), second.clone()], format);
        assert!(report.contains("comparison.output"), "{format:?}");
        assert!(!said(&[first.clone(), first.clone()], format).contains("comparison.output"), "{format:?}");
    }
    let json: Value = serde_json::from_str(&said(&[first, second], Format::Json)).unwrap();
    let difference = serde_json::json!({"what": "comparison.output", "first": "memory", "second": "pipe"});
    assert_eq!(json["differences"], serde_json::json!([difference]));
}

#[test]
fn a_latency_log_is_reported_by_tag_and_over_time() {
    let text = said(&[sample::without_comparison(1)], Format::Hlog);
    let log = Log::parse(&text).unwrap();
    let fin = log.tags.iter().find(|tag| tag.name == "detect-fin").unwrap();
    assert_eq!(fin.whole.count(), 2_000);
    for format in [Format::Text, Format::Markdown, Format::Html] {
        let report = render_log(&log, format, &Options { full: true, ..Options::default() }).unwrap();
        for words in
            ["detect-fin", "detect-half-close-rst", "Over time", "Latencies", "p99.9", "What each tag means"]
        {
            assert!(report.contains(words), "{format:?}: {words}");
        }
        let p50 = deadpeer::measure::report::show::nanos(fin.whole.percentile(50.0));
        assert!(report.contains(&p50), "{format:?}");
    }
    assert_eq!(render_log(&log, Format::Hgrm, &Options::default()), Err(ReportError::Log("hgrm")));
}
