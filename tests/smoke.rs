use deadpeer::driver::*;
use deadpeer::liveness::*;
use std::io::Write;
use std::sync::*;
use std::time::Duration;
#[test]
fn smoke() {
    let policy = Policy {
        idle: Duration::from_millis(400),
        interval: Duration::from_millis(100),
        probes: 2,
        handshake: Duration::from_millis(800),
        ..Policy::STRICT
    };
    let tc = TrackerConfig::new(policy, 100);
    let l = bind("127.0.0.1:0".parse().unwrap(), 1, &tc).unwrap();
    let addr = l[0].address();
    let shared = Arc::new(Shared::new(100));
    let locals = Arc::new(Locals::default());
    let w = Arc::new(deadpeer::sys::wakeup::Wakeup::new().unwrap());
    let (s2, w2) = (shared.clone(), w.clone());
    let t = std::thread::spawn(move || {
        let d = UringDriver::new(
            DriverConfig { tracker: tc, batch_window: Duration::ZERO },
            l,
            s2,
            locals,
            w2,
            |e: Event| println!("{e:?}"),
        )
        .unwrap();
        println!("{}", d.features());
        println!("{:?}", d.run().unwrap());
    });
    let mut c: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
    for c in &mut c[1..] {
        c.write_all(b"hello").unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    c.pop(); // FIN
    let x = c.pop().unwrap();
    socket2::SockRef::from(&x).set_linger(Some(Duration::ZERO)).unwrap();
    drop(x);
    std::thread::sleep(Duration::from_millis(450));
    c[1].write_all(b"back").unwrap();
    std::thread::sleep(Duration::from_millis(1000));
    shared.stop();
    w.wake();
    t.join().unwrap();
}
