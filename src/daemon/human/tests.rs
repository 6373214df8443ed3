use super::*;
use crate::daemon::jsonl::tests::samples;

#[test]
fn dump() {
    let mut printer = Printer::new(samples::locals(), false, false);
    printer.set_clock(samples::WALL);
    let mut out = Vec::new();
    printer.listening(&samples::listening(), &mut out);
    for (thread, event) in samples::events() {
        printer.event(thread, &event, &mut out);
    }
    for event in samples::deaths() {
        printer.event(0, &event, &mut out);
    }
    printer.summary(&samples::closing(), &mut out);
    println!("{}", String::from_utf8(out).unwrap());
}
