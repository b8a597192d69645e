//! Start and end.

use crate::common::{config, golden, models, start};
use mm_serve::Server;
use serde_json::json;
use std::net::TcpStream;

#[test]
fn what_runs_is_finished_and_nothing_new_is_accepted() {
    let server = start(&models("steps = 1000\n"));
    let (address, stop) = (server.address, server.stop_handle());
    let body = json!({ "model": "sd", "prompt": "a", "steps": 200 });
    std::thread::scope(|scope| {
        let running = scope.spawn(|| server.post("/v1/generate", &body));
        server.wait_for_metric("mm_requests_in_flight 2"); // with the metrics' own
        stop.stop();
        assert_eq!(running.join().unwrap().status, 200);
    });
    server.join().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn idle_connections_do_not_hold_the_server() {
    let server = start(&models(""));
    let idle: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    server.get("/healthz");
    server.stop_handle().stop();
    server.join().unwrap();
    drop(idle);
}

#[test]
fn a_model_that_cannot_be_opened_ends_the_server_and_is_named() {
    let toml =
        models("") + &format!("[models.broken]\ntask = \"clip\"\nfrom = {:?}\n", golden("text/siglip"));
    let server = Server::bind(&config(&toml).unwrap(), ([127, 0, 0, 1], 0).into(), None).unwrap();
    let error = server.run(|| panic!("it is ready")).unwrap_err().to_string();
    assert!(error.starts_with("cannot open [models.broken]: "), "{error}");
}

#[test]
fn an_address_in_use_is_named() {
    let server = start(&models(""));
    let error = Server::bind(&config(&models("")).unwrap(), server.address, None).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {}: ", server.address)), "{error}");
}
