//! The page in a real browser: it works without scripts, makes no request, fits a telephone and paper, and keeps every
//! string of a file text.

use std::collections::BTreeSet;

use deadpeer::measure::report::figures::Figure;
use deadpeer::measure::report::{Format, Options, render};
use deadpeer::measure::result::{Cost, Idle, Interval, ResultFile, Way};

use crate::browser::Browser;
use crate::sample;

/// A string that would be markup if it were not escaped.
const HOSTILE: &str =
    "</title></svg><script>document.title='owned'</script><img src=x onerror=alert(1)>\"' onload='x' &amp;";

fn page(results: &[ResultFile]) -> String {
    render(results, Format::Html, &Options::default()).unwrap()
}

/// A sample in which every string is hostile and long.
fn hostile() -> ResultFile {
    let mut result = sample::whole(3);
    let spoil = |text: &mut String| *text = format!("{HOSTILE} {text} {}", "x".repeat(300));
    spoil(&mut result.program.version);
    spoil(&mut result.program.build);
    spoil(&mut result.started);
    spoil(&mut result.machine.kernel);
    spoil(&mut result.machine.cpu);
    result.command.iter_mut().for_each(spoil);
    for doubt in &mut result.doubts {
        spoil(&mut doubt.text);
        spoil(&mut doubt.remedy);
    }
    let experiment = result.experiment.as_mut().unwrap();
    spoil(&mut experiment.settings.wake);
    experiment.ways.iter_mut().filter_map(|way| way.not_run.as_mut()).for_each(spoil);
    let comparison = result.comparison.as_mut().unwrap();
    for subject in &mut comparison.subjects {
        spoil(&mut subject.name);
        spoil(&mut subject.what);
        spoil(&mut subject.gives_up);
    }
    comparison.runs.iter_mut().for_each(|run| spoil(&mut run.subject));
    result
}

/// Pages of all kinds of results, by name.
fn pages() -> Vec<(&'static str, String)> {
    vec![
        ("whole", page(&[sample::whole(1)])),
        ("two", page(&[sample::whole(1), sample::elsewhere(2)])),
        ("few", page(&[sample::few(1)])),
        ("only detection", page(&[sample::without_comparison(1)])),
        ("only yardsticks", page(&[sample::without_experiment(1)])),
        ("two that share nothing", page(&[sample::without_experiment(1), sample::without_comparison(1)])),
        ("hostile", page(&[hostile()])),
        ("two hostile", page(&[hostile(), hostile()])),
        ("nothing", page(&[])),
    ]
}

/// The tags of a page in order: name, attributes, whether it opens, and whether it closes.
fn tags(page: &str) -> Vec<(&str, &str, bool, bool)> {
    // The style sheet is not markup.
    let (before, rest) = page.split_once("<style>").unwrap();
    let (style, after) = rest.split_once("</style>").unwrap();
    assert!(!style.contains('<') && !style.contains("url(") && !style.contains("@import"));
    let pieces = before.split('<').skip(1).chain(after.split('<').skip(1));
    let pieces = pieces.filter(|piece| !piece.starts_with('!'));
    pieces
        .map(|piece| {
            let (tag, _) = piece.split_once('>').unwrap_or_else(|| panic!("<{piece} has no end"));
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            let closes = name.starts_with('/') || tag.ends_with('/') || matches!(name, "meta" | "input");
            (name.trim_matches('/'), attributes.trim_end_matches('/'), !name.starts_with('/'), closes)
        })
        .collect()
}

#[test]
fn tags_are_closed_in_order_and_names_are_given_once() {
    for (name, page) in pages() {
        let (mut open, mut ids, mut referred) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for (tag, attributes, opens, closes) in tags(&page) {
            match (opens, closes) {
                (true, true) => {}
                (true, false) => open.push(tag),
                (false, _) => assert_eq!(open.pop(), Some(tag), "{name}"),
            }
            let mut quotes = attributes.split('"');
            while let (Some(key), Some(value)) = (quotes.next(), quotes.next()) {
                let key = key.trim().trim_start_matches("checked ");
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-=: ".contains(&byte);
                assert!(key.bytes().all(plain), "{name}: `{key}` in {tag}");
                match key.trim_end_matches('=') {
                    "id" => assert!(ids.insert(value), "{name}: two are called {value}"),
                    "aria-labelledby" => referred.extend(value.split(' ')),
                    _ => {}
                }
            }
        }
        assert!(open.is_empty(), "{name}: {open:?} stay open");
        assert!(referred.is_subset(&ids), "{name}: {referred:?} are not all among {ids:?}");
    }
}

#[test]
fn a_page_is_small_enough_for_a_mail_and_the_same_every_time() {
    for (name, page) in pages() {
        assert!(page.len() < 300_000 || name.contains("hostile"), "{name}: {} bytes", page.len());
    }
    assert_eq!(page(&[sample::whole(1)]), page(&[sample::whole(1)]));
}

#[test]
fn no_number_is_too_large_or_too_small_for_a_page() {
    let mut result = sample::few(1);
    let experiment = result.experiment.as_mut().unwrap();
    experiment.quality.watched_ns = 0;
    for way in &mut experiment.ways {
        (way.injected, way.told, way.missed) = (u64::MAX, u64::MAX, u64::MAX);
        way.latency.record(0);
        way.latency.record(u64::MAX);
        way.intervals.push(Interval { from_ns: u64::MAX, length_ns: u64::MAX, latency: way.latency.clone() });
    }
    let twice = experiment.ways.clone();
    experiment.ways.extend(twice);
    let mut comparison = sample::without_experiment(1).comparison.unwrap();
    for run in &mut comparison.runs {
        run.accept = Some(Cost { count: 1, process_ns: if run.subject == "epoll" { 1 } else { u64::MAX } });
        run.idle = Some(Idle { connections: 1, user_bytes: i64::MIN, kernel_bytes: Some(0) });
    }
    result.comparison = Some(comparison);
    let page = page(&[result]);
    assert!(page.len() < 300_000 && !page.contains("NaN") && !page.contains("inf"), "{page}");
}

#[test]
fn what_a_sample_does_not_carry_is_neither_written_nor_drawn() {
    let few = page(&[sample::few(1)]);
    // 40 deaths do not carry p90, so no line has a mark there.
    assert!(few.contains("fin p50: ") && !few.contains("fin p90: ") && !few.contains("p99: "));
    let row = few.split("<th scope=\"row\">fin</th>").nth(1).unwrap().split("</tr>").next().unwrap();
    assert_eq!(row.matches("<td>-</td>").count(), 3, "{row}");
}

#[test]
fn every_way_subject_doubt_and_figure_is_there_without_scripts() {
    let Some(browser) = Browser::find("page") else { return };
    let result = sample::whole(1);
    let page = page(std::slice::from_ref(&result));
    let seen = browser.open(&page, &[]);
    assert_eq!(seen.console, Vec::<String>::new());
    let mut frames = String::new();
    frame(&mut frames, "without scripts", 1280, "", &page);
    let text = look(&browser, &frames, &[], &[]);
    let experiment = result.experiment.as_ref().unwrap();
    let comparison = result.comparison.as_ref().unwrap();
    let mut wanted: Vec<String> = Way::ALL.iter().map(ToString::to_string).collect();
    wanted.extend(Figure::ALL.iter().map(|figure| figure.title().to_owned()));
    wanted.extend(
        comparison
            .subjects
            .iter()
            .flat_map(|subject| [&subject.name, &subject.what, &subject.gives_up].map(Clone::clone)),
    );
    wanted.extend(result.doubts.iter().flat_map(|doubt| [doubt.text.clone(), doubt.remedy.clone()]));
    wanted.extend(experiment.ways.iter().filter_map(|way| way.not_run.clone()));
    wanted.extend(result.command.iter().cloned());
    wanted.extend([result.machine.cpu.clone(), result.machine.kernel.clone(), result.started.clone()]);
    for wanted in wanted {
        assert!(text.contains(&wanted), "`{wanted}` is not on the page");
    }
    for way in experiment.ways.iter().filter(|way| way.not_run.is_none()) {
        let id = format!("time-{}", way.way);
        assert!(seen.dom.contains(&format!("id=\"{id}-t\"")), "{} has no picture over time", way.way);
        assert!(
            seen.dom.contains(&format!("<title>{} p99: ", way.way)),
            "{} is not in the spectrum",
            way.way
        );
    }
}

#[test]
fn a_file_cannot_make_a_browser_do_anything() {
    let Some(browser) = Browser::find("hostile") else { return };
    let seen = browser.open(&page(&[hostile()]), &[]);
    assert_eq!(seen.console, Vec::<String>::new());
    assert!(text_of(&seen.dom).contains(HOSTILE), "hostile text is not shown as it is");
    assert!(!seen.dom.contains("<script") && !seen.dom.contains("<img"), "text became markup");
    // The page's policy stops a script even if one got into the page.
    let broken = page(&[hostile()]).replacen("<main>", "<main><script>document.title='owned'</script>", 1);
    let seen = browser.open(&broken, &[]);
    assert!(!seen.dom.contains("<title>owned"), "the policy let a script run");
    assert!(seen.console.iter().any(|line| line.contains("Content Security Policy")), "{:?}", seen.console);
}

#[test]
fn nothing_overlaps_overflows_or_pales_on_a_telephone_a_screen_and_paper() {
    let Some(browser) = Browser::find("look") else { return };
    let (mut frames, mut dark) = (String::new(), String::new());
    for (name, page) in pages() {
        let widths =
            if name == "whole" || name == "two" { vec![360, 700, 1000, 1280] } else { vec![360, 1280] };
        for width in widths {
            frame(&mut frames, &format!("{name}, {width} px"), width, "", &page);
        }
        frame(&mut dark, &format!("{name}, dark"), 1280, "data-dark", &page);
        if !name.contains("hostile") {
            // The width of A4 without margins.
            let paper = page.replace("@media print", "@media screen");
            frame(&mut frames, &format!("{name}, on paper"), 688, "data-paper", &paper);
        }
    }
    look(&browser, &frames, &[], &[]);
    look(&browser, &dark, &["--blink-settings=preferredColorScheme=0"], &[]);
}

#[test]
fn a_look_at_the_page_finds_what_is_wrong() {
    let Some(browser) = Browser::find("canary") else { return };
    let broken = [
        ("<main>", "<main><p style=\"min-width: 2000px\">wide</p>", "too wide"),
        ("<main>", "<main><p style=\"color: #999\">pale</p>", "hardly seen"),
        ("<main>", "<main><a href=\"#\">away</a>", "has a a"),
        (
            "</text>",
            "</text><text x=\"60\" y=\"10\">this</text><text x=\"62\" y=\"11\">that</text>",
            "is on `that`",
        ),
        ("</text>", "</text><text x=\"500\" y=\"90\">beyond the edge</text>", "is cut off"),
        ("</text>", "</text><text x=\"250\" y=\"90\" style=\"font-size: 5px\">small</text>", "px high"),
        (".s0, figure", ".s9, figure", "switches nothing"),
    ];
    let mut frames = String::new();
    for (from, to, complaint) in broken {
        frame(&mut frames, complaint, 1280, "", &page(&[sample::whole(1)]).replacen(from, to, 1));
    }
    look(&browser, &frames, &[], &broken.map(|(.., complaint)| complaint));
}

/// A page in a frame in which no script runs.
fn frame(frames: &mut String, title: &str, width: u32, marks: &str, page: &str) {
    let page = page.replace('&', "&amp;").replace('"', "&quot;");
    let size = format!("style=\"width: {width}px; height: 800px; border: 0\"");
    frames.push_str(&format!(
        "<iframe sandbox=\"allow-same-origin\" {marks} title=\"{title}\" {size} srcdoc=\"{page}\"></iframe>\n"
    ));
}

/// Looks at all frames and returns their text. A complaint is expected of the frame that has its name, and of no
/// other.
fn look(browser: &Browser, frames: &str, options: &[&str], expected: &[&str]) -> String {
    let script = include_str!("look.js");
    let places = "<pre id=looked></pre><pre id=complaints></pre><pre id=words></pre>";
    let page =
        format!("<!doctype html><html><meta charset=utf-8><script>{script}</script>{places}{frames}</html>");
    let seen = browser.open(&page, options);
    let said = |id: &str| {
        let (_, rest) = seen.dom.split_once(&format!("<pre id=\"{id}\">")).unwrap();
        text_of(rest.split("</pre>").next().unwrap())
    };
    let looked = format!("{} pages, ", frames.matches("<iframe ").count());
    assert!(said("looked").starts_with(&looked), "looked at `{}`: {:?}", said("looked"), seen.console);
    let complaints = said("complaints");
    let mut left: Vec<_> = complaints.lines().collect();
    for wanted in expected {
        let of_it = |line: &&str| {
            line.starts_with(&format!("{wanted}: ")) && line[wanted.len() + 2..].contains(wanted)
        };
        assert!(left.iter().any(of_it), "`{wanted}` was not seen: {complaints}");
        left.retain(|line| !line.starts_with(&format!("{wanted}: ")));
    }
    assert!(left.is_empty(), "{left:#?}, {:?}", seen.console);
    said("words")
}

#[test]
fn it_can_be_printed() {
    let Some(browser) = Browser::find("paper") else { return };
    let paper = browser.print(&page(&[sample::whole(1)]));
    assert!(paper.starts_with(b"%PDF-"));
    let pages = paper.windows(11).filter(|window| window == b"/Type /Page").count();
    assert!((3..=12).contains(&pages), "{pages} pages");
}

/// The text of markup.
fn text_of(markup: &str) -> String {
    let mut text = String::new();
    for piece in markup.split('<') {
        text.push_str(piece.split_once('>').map_or(piece, |(_, text)| text));
    }
    let named =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " "), ("&amp;", "&")];
    named.iter().fold(text, |text, (name, letter)| text.replace(name, letter)).replace('\u{a0}', " ")
}
