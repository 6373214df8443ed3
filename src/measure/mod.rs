//! stub
#[derive(Debug)]
pub struct Recorder;
impl Recorder {
    pub fn new() -> Self { Recorder }
    pub fn batch(&mut self, _: u64) {}
    pub fn turn(&mut self, _: std::time::Duration) {}
    pub fn rtt(&mut self, _: std::time::Duration) {}
    pub fn death(&mut self, _: &crate::liveness::Death) {}
}
