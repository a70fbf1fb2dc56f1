//! The admin endpoint and its client.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use serde_json::json;
use spillway_ops::{AdminServer, AdminSource, Health, Metrics, status};

const ANYWHERE: &str = "127.0.0.1:0";

#[derive(Default)]
struct Program {
    stuck: AtomicBool,
}

impl AdminSource for Program {
    fn health(&self) -> Health {
        match self.stuck.load(Relaxed) {
            true => Health::Bad("no ack for 61 s".to_owned()),
            false => Health::Good,
        }
    }

    fn ready(&self) -> Health {
        Health::Bad("draining".to_owned())
    }

    fn status(&self) -> serde_json::Value {
        json!({"site": "plant-7", "lag_records": 12})
    }
}

fn start() -> (Arc<Program>, AdminServer) {
    let program = Arc::new(Program::default());
    let source: Arc<dyn AdminSource> = Arc::clone(&program) as _;
    let server = AdminServer::start(ANYWHERE.parse().unwrap(), source, Arc::new(Metrics::new("test"))).unwrap();
    (program, server)
}

/// Sends a request as it is; the whole answer.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
}

#[test]
fn pages_say_what_the_program_says() {
    let (program, server) = start();
    let at = server.address();
    let health = get(at, "/healthz");
    assert!(health.starts_with("HTTP/1.1 200 OK") && health.ends_with("\r\n\r\nok\n"), "{health}");
    program.stuck.store(true, Relaxed);
    let health = get(at, "/healthz");
    assert!(health.starts_with("HTTP/1.1 503 ") && health.ends_with("no ack for 61 s\n"), "{health}");
    let ready = get(at, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.ends_with("draining\n"), "{ready}");
    let metrics = get(at, "/metrics");
    assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n") && metrics.contains("spillway_build_info"), "{metrics}");
    assert!(get(at, "/").contains("/readyz"));
    assert!(get(at, "/nowhere").starts_with("HTTP/1.1 404 "));
    assert!(ask(at, "POST /status HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(ask(at, "HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n").ends_with("\r\n\r\n"), "a head has no body");
    assert_eq!(status::fetch(at).unwrap(), json!({"site": "plant-7", "lag_records": 12}));
}

#[test]
fn it_answers_while_the_data_plane_is_stuck() {
    let data_plane = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    data_plane.block_on(async {
        let (_program, server) = start();
        // Nothing of this runtime runs while this blocks.
        let health = get(server.address(), "/healthz");
        assert!(health.starts_with("HTTP/1.1 200 OK"), "{health}");
    });
}

#[test]
fn who_stalls_does_not_keep_others_out() {
    let (_program, server) = start();
    let at = server.address();
    // More than there are places; each begins a request and falls silent.
    let stalled: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.write_all(b"GET /heal").unwrap();
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(300));
    let health = get(at, "/healthz");
    assert!(health.starts_with("HTTP/1.1 200 OK"), "{health}");
    drop(stalled);
}

#[test]
fn an_endless_head_is_cut_off() {
    let (_program, server) = start();
    let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(12_000));
    assert!(ask(server.address(), &head).starts_with("HTTP/1.1 431 "));
    let many: String = (0..100).map(|n| format!("x{n}: y\r\n")).collect();
    assert!(ask(server.address(), &format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{many}\r\n")).starts_with("HTTP/1.1 431 "));
}

#[test]
fn a_taken_port_is_a_clear_error_and_a_stopped_server_frees_it() {
    let (program, server) = start();
    let at = server.address();
    let source: Arc<dyn AdminSource> = program;
    let error = AdminServer::start(at, Arc::clone(&source), Arc::new(Metrics::new("test"))).unwrap_err();
    let text = spillway_ops::exit::chain(&error);
    assert!(text.starts_with(&format!("cannot listen on tcp {at} (admin.listen)")) && text.contains("in use"), "{text}");
    drop(server);
    AdminServer::start(at, source, Arc::new(Metrics::new("test"))).unwrap();
}

/// Answers every connection with `answer`.
fn impostor(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(ANYWHERE).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            assert!(read > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    at
}

#[test]
fn the_client_says_what_it_met() {
    let nobody = TcpListener::bind(ANYWHERE).unwrap().local_addr().unwrap();
    let error = status::fetch(nobody).unwrap_err().to_string();
    assert!(error.starts_with(&format!("nothing answers on {nobody} (admin.listen); is the program running")), "{error}");

    let other = impostor("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    let error = status::fetch(other).unwrap_err().to_string();
    assert!(error.contains("answered 404 Not Found"), "{error}");
    let other = impostor("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    let error = status::fetch(other).unwrap_err().to_string();
    assert!(error.contains("is no status"), "{error}");
    let other = impostor("220 smtp.example ESMTP\r\n");
    let error = status::fetch(other).unwrap_err().to_string();
    assert!(error.ends_with("is no admin endpoint"), "{error}");
}

#[test]
fn a_wildcard_is_asked_on_the_loopback() {
    let program: Arc<dyn AdminSource> = Arc::new(Program::default());
    let server = AdminServer::start("0.0.0.0:0".parse().unwrap(), program, Arc::new(Metrics::new("test"))).unwrap();
    assert!(server.address().ip().is_unspecified());
    status::fetch(server.address()).unwrap();
}

/// The source is asked on the endpoint's thread: a lock that the data plane holds for long would block it, which is why
/// [`AdminSource`] forbids that. This pins that requests are answered one by one, so that a slow one delays and does not break.
#[test]
fn requests_are_answered_one_after_the_other() {
    struct Slow(Mutex<u32>);
    impl AdminSource for Slow {
        fn health(&self) -> Health {
            Health::Good
        }
        fn ready(&self) -> Health {
            Health::Good
        }
        fn status(&self) -> serde_json::Value {
            let mut asked = self.0.try_lock().unwrap();
            thread::sleep(Duration::from_millis(20));
            *asked += 1;
            json!(*asked)
        }
    }
    let slow: Arc<dyn AdminSource> = Arc::new(Slow(Mutex::new(0)));
    let server = AdminServer::start(ANYWHERE.parse().unwrap(), slow, Arc::new(Metrics::new("test"))).unwrap();
    let at = server.address();
    let askers: Vec<_> = (0..8).map(|_| thread::spawn(move || status::fetch(at).unwrap())).collect();
    let mut answers: Vec<_> = askers.into_iter().map(|asker| asker.join().unwrap().as_u64().unwrap()).collect();
    answers.sort_unstable();
    assert_eq!(answers, (1..=8).collect::<Vec<u64>>());
}
