//! Many connections, many ports, and the bounds of both.

use super::*;

/// Connections at once, of one tunnel.
const CROWD: usize = 1_000;
/// Ports of the range.
const ROW: u16 = 3;

#[test]
fn a_thousand_connections_are_carried_at_once() -> Result {
    let (deployment, _agent, _) = deployed()?;
    let echo = echo()?;
    let (forwarding, at) = forward(&deployment, &format!("0:{}", echo.port()))?;
    let mut visitors = Vec::new();
    for n in 0..CROWD {
        let visitor = TcpStream::connect(at[0][n % 2])?;
        visitor.set_read_timeout(Some(Duration::from_secs(60)))?;
        (&visitor).write_all(format!("visitor {n:04}").as_bytes())?;
        visitors.push(visitor);
    }
    // All of them are open before any ends.
    for (n, visitor) in visitors.iter().enumerate() {
        let mut back = [0; 12];
        let mut visitor = visitor;
        visitor.read_exact(&mut back)?;
        assert_eq!(back, format!("visitor {n:04}").as_bytes());
    }
    for visitor in &visitors {
        visitor.shutdown(Shutdown::Write)?;
        let mut visitor = visitor;
        assert_eq!(visitor.read(&mut [0; 1])?, 0);
    }
    forwarding.stop()
}

/// Programs at ports in a row, each of which says its number among them to whoever comes; and their first port. The
/// same ports a little further up were free too.
fn row() -> Result<u16> {
    for _ in 0..200 {
        let first = TcpListener::bind("127.0.0.1:0")?;
        let port = first.local_addr()?.port();
        let Some(end) = port.checked_add(ROW + 10) else { continue };
        let more: Vec<_> =
            (port + 1..end).map_while(|port| TcpListener::bind(("127.0.0.1", port)).ok()).collect();
        if more.len() + 1 < usize::from(ROW + 10) {
            continue;
        }
        let services = std::iter::once(first).chain(more).take(usize::from(ROW));
        for (n, service) in services.enumerate() {
            std::thread::spawn(move || {
                for visitor in service.incoming().flatten() {
                    let _ = (&visitor).write_all(format!("number {n}").as_bytes());
                }
            });
        }
        return Ok(port);
    }
    Err("no ports in a row".into())
}

#[test]
fn a_range_leads_each_port_to_its_own() -> Result {
    let (deployment, _agent, _) = deployed()?;
    // Another program may take one of them in between.
    let mut tries = (0..20).map(|_| {
        let first = row()?;
        let spec = format!("{}-{}:{first}-{}", first + 10, first + 9 + ROW, first + ROW - 1);
        let forwarded = forward(&deployment, &spec);
        match forwarded {
            Err(error) if error.to_string().contains("PORT_IN_USE") => Ok(None),
            other => other.map(|(forwarding, at)| Some((forwarding, at, first))),
        }
    });
    let (forwarding, at, first) =
        tries.find_map(Result::transpose).ok_or("others took the ports twenty times")??;
    assert_eq!(at.len(), usize::from(ROW));
    for (n, at) in at.iter().enumerate() {
        let wanted = first + 10 + u16::try_from(n)?;
        assert!(at.len() == 2 && at.iter().all(|at| at.port() == wanted), "{at:?}");
        for at in at {
            assert_eq!(round_trip(*at, b"")?, format!("number {n}").as_bytes(), "{at}");
        }
    }
    forwarding.stop()
}

#[test]
fn a_new_connection_does_not_wait_behind_those_that_carry_much() -> Result {
    let (deployment, _agent, _) = deployed()?;
    let echo = echo()?;
    let source = TcpListener::bind("127.0.0.1:0")?;
    let bulk = source.local_addr()?.port();
    std::thread::spawn(move || {
        for visitor in source.incoming().flatten() {
            std::thread::spawn(move || while (&visitor).write_all(&[7; 65_536]).is_ok() {});
        }
    });
    let (forwarding, at) = forward(&deployment, &format!("0:{bulk},0:{}", echo.port()))?;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..60)
        .map(|_| {
            let (to, done) = (at[0][0], done.clone());
            std::thread::spawn(move || -> std::io::Result<usize> {
                let mut stream = TcpStream::connect(to)?;
                let (mut buffer, mut all) = (vec![0; 65_536], 0);
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    all += stream.read(&mut buffer)?;
                }
                Ok(all)
            })
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let mut times: Vec<_> = (0..20)
        .map(|_| {
            let began = Instant::now();
            round_trip(at[1][0], b"quick").map(|_| began.elapsed())
        })
        .collect::<Result<_>>()?;
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let carried: usize = readers.into_iter().filter_map(|reader| reader.join().ok()?.ok()).sum();
    times.sort();
    // On two busy cores it takes a tenth of a second; one that starves takes many.
    assert!(times[10] < Duration::from_secs(1) && times[19] < Duration::from_secs(5), "{times:?}");
    assert!(carried > 60 << 20, "the others did not carry much: {carried}");
    forwarding.stop()
}
