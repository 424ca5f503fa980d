use super::*;
use std::future::poll_fn;

fn pair(ip: &str) -> (BatchedUdp, BatchedUdp) {
    let any = || SocketAddr::new(ip.parse().unwrap(), 0);
    (BatchedUdp::bind(any()).unwrap(), BatchedUdp::bind(any()).unwrap())
}

async fn send(socket: &BatchedUdp, run: &Datagrams<'_>) -> usize {
    poll_fn(|cx| socket.poll_writable(cx)).await.unwrap();
    socket.try_send(run).unwrap()
}

async fn receive_all(socket: &BatchedUdp, count: usize) -> Vec<Vec<u8>> {
    let (mut out, mut batch) = (Vec::new(), RecvBatch::new(8));
    while out.len() < count {
        poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
        out.extend(batch.datagrams().map(|(_, bytes)| bytes.to_vec()));
    }
    out
}

async fn a_run_arrives_whole(ip: &str) {
    let (a, b) = pair(ip);
    let bytes: Vec<u8> = (0..20 * 1_400 + 77).map(|i: u32| (i % 251) as u8).collect();
    let run = Datagrams { to: b.local_addr(), bytes: &bytes, segment: 1_400, ttl: None };
    assert_eq!(send(&a, &run).await, bytes.len());
    let received = receive_all(&b, 21).await;
    assert_eq!(received.iter().map(Vec::len).collect::<Vec<_>>()[19..], [1_400, 77]);
    assert_eq!(received.concat(), bytes);
}

#[tokio::test]
async fn a_run_of_datagrams_arrives_whole_over_ipv4() {
    a_run_arrives_whole("127.0.0.1").await;
}

#[tokio::test]
async fn a_run_of_datagrams_arrives_whole_over_ipv6() {
    a_run_arrives_whole("::1").await;
}

#[tokio::test]
async fn without_batches_a_run_goes_one_by_one() {
    let (a, b) = pair("127.0.0.1");
    let bytes = vec![5; 3_000];
    let run = Datagrams { to: b.local_addr(), bytes: &bytes, segment: 1_000, ttl: None };
    poll_fn(|cx| a.poll_writable(cx)).await.unwrap();
    assert_eq!(a.send_singly(&run).unwrap(), 3_000);
    assert_eq!(receive_all(&b, 3).await.concat(), bytes);
}

#[tokio::test]
async fn a_hop_limit_is_one_datagrams_alone() {
    for ip in ["127.0.0.1", "::1"] {
        let (a, b) = pair(ip);
        let options = SockRef::from(&a.socket);
        let hops =
            || if ip.contains(':') { options.unicast_hops_v6().unwrap() } else { options.ttl_v4().unwrap() };
        let usual = hops();
        let run = Datagrams { ttl: Some(3), ..Datagrams::one(b.local_addr(), b"opener") };
        send(&a, &run).await;
        assert_eq!(receive_all(&b, 1).await, [b"opener".to_vec()]);
        assert_eq!(hops(), usual);
    }
}

#[tokio::test]
async fn a_datagram_to_nowhere_is_loss_and_not_an_error() {
    let (a, b) = pair("127.0.0.1");
    let (gone, back) = (b.local_addr(), a.local_addr());
    drop(b);
    for _ in 0..3 {
        send(&a, &Datagrams::one(gone, b"anybody?")).await;
    }
    let c = BatchedUdp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    send(&c, &Datagrams::one(back, b"here")).await;
    assert_eq!(receive_all(&a, 1).await, [b"here".to_vec()]);
}

#[tokio::test]
async fn a_busy_port_is_refused_and_buffers_are_reported() {
    let (a, _) = pair("127.0.0.1");
    assert_eq!(BatchedUdp::bind(a.local_addr()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert!(a.buffers().receive > 100_000 && a.buffers().send > 100_000, "{:?}", a.buffers());
}
