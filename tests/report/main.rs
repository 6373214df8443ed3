//! Reports: what every format must say of believable results, and what no file may do to them.

mod sample;

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
