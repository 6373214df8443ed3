//! Reports: what every format must say of believable results, and what no file may do to them.

mod browser;
mod html;
mod sample;
#[path = "../kernel/skip.rs"]
mod skip;

use deadpeer::measure::result::ResultFile;

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
fn show_me() {
    use deadpeer::measure::report::{Format, Options, render};
    for (name, format, results) in [
        ("text", Format::Text, vec![sample::whole(1)]),
        ("two", Format::Text, vec![sample::whole(1), sample::elsewhere(2)]),
        ("few", Format::Text, vec![sample::few(1)]),
        ("md", Format::Markdown, vec![sample::whole(1)]),
    ] {
        std::fs::write(format!("/tmp/show-{name}"), render(&results, format, &Options::default()).unwrap())
            .unwrap();
    }
}
