//! Outages, addresses and doors.

mod client;

use bytes::Bytes;
use client::{Failure, PATIENCE, Scene, said};
use kivafs_fault_proxy::{Outage, Proxy, ProxyOptions, Violation};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

#[test]
fn refused_connections_and_their_return() {
    let scene = Scene::new();
    let at = scene.proxy.addresses()[0];
    let mut connected = TcpStream::connect(at).unwrap();
    connected.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_ne!(connected.read(&mut [0; 100]).unwrap(), 0);
    scene.proxy.outage(Outage::Refuse);
    let error = connected.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    for _ in 0..5 {
        assert_eq!(TcpStream::connect(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(scene.client.put("x", "body"), Err(Failure::Broken));
    }
    let requests = scene.proxy.counts().requests();
    scene.proxy.outage(Outage::None);
    scene.client.put("x", "body").unwrap();
    assert_eq!(scene.proxy.counts().requests(), requests + 1);
}

#[test]
fn a_silence_after_which_all_goes_on() {
    let scene = Scene::new();
    scene.client.put("before", "body").unwrap();
    scene.proxy.outage(Outage::Hang);
    let impatient = scene.client.impatient(&scene.proxy.endpoint());
    assert_eq!(impatient.get("before"), Err(Failure::Silent));
    std::thread::scope(|scope| {
        let put = scope.spawn(|| scene.client.put("during", "body"));
        assert_eq!(impatient.get("before"), Err(Failure::Silent));
        assert_eq!(scene.beside.get("during"), said(404, "NoSuchKey"));
        scene.proxy.outage(Outage::None);
        assert_eq!(put.join().unwrap(), Ok(()));
    });
    assert_eq!(scene.beside.get("during"), Ok(Bytes::from("body")));
}

#[test]
fn one_address_fails_alone() {
    let scene = Scene::with(1, 3);
    let addresses = scene.proxy.addresses();
    assert_eq!(addresses.len(), 3);
    assert!(addresses.iter().all(|address| address.port() == addresses[0].port()));
    scene.proxy.outage_at(1, Outage::Refuse);
    scene.proxy.plan("any * at=2 slow-down");
    scene.at(0).put("x", "body").unwrap();
    assert_eq!(scene.at(1).get("x"), Err(Failure::Broken));
    assert_eq!(scene.at(2).get("x"), said(503, "SlowDown"));
    scene.proxy.outage(Outage::None);
    assert_eq!(scene.at(1).get("x"), Ok(Bytes::from("body")));
    let log = scene.proxy.log();
    assert_eq!(log.iter().map(|entry| entry.address).collect::<Vec<_>>(), [0, 2, 1]);
}

#[test]
fn writers_at_doors_of_their_own() {
    let scene = Scene::new();
    let (old, old_writer) = scene.door();
    let (new, new_writer) = scene.door();
    assert_eq!((old.number(), new.number()), (1, 2));
    scene.proxy.plan("create * door=1 nth=1 reset");
    assert_eq!(old_writer.create("c1", "old"), Err(Failure::Broken));
    new_writer.create("c1", "new").unwrap();
    assert_eq!(old_writer.create("c1", "old"), said(412, "PreconditionFailed"));
    assert_eq!(scene.proxy.violations(), [], "each has its own bytes, and the server took one");
    assert!(old_writer.create("c1", "rebuilt").is_err());
    assert!(matches!(&scene.proxy.violations()[..], [Violation::Rebuilt { door: 1, .. }]));
    let at = old.addresses()[0];
    drop(old);
    assert_eq!(TcpStream::connect(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(old_writer.get("c1"), Err(Failure::Broken));
    assert_eq!(new_writer.get("c1"), Ok(Bytes::from("new")));
    assert!(scene.proxy.wait(PATIENCE, |log| log.iter().all(|entry| entry.ended.is_some())));
}

#[test]
fn a_door_may_be_dropped_after_its_proxy() {
    let proxy = Proxy::start(ProxyOptions::to("http://127.0.0.1:1")).unwrap();
    let door = proxy.door().unwrap();
    drop(proxy);
    // It would wait for listeners that are no more.
    drop(door);
}

#[test]
fn a_server_that_is_gone_is_a_broken_connection() {
    let scene = Scene::new();
    let port = {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        taken.local_addr().unwrap().port()
    };
    let proxy = Proxy::start(ProxyOptions::to(&format!("http://127.0.0.1:{port}"))).unwrap();
    assert_eq!(scene.client.at(&proxy.endpoint()).put("x", "body"), Err(Failure::Broken));
    assert!(proxy.log()[0].server.is_none());
}
