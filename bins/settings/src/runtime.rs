//! The runtime of programs that do all their work on one thread.

use crate::Fault;

/// How many tasks run before the sockets are looked at again: with tokio's 61 and as many busy connections, a new one is
/// seen late.
const EVENT_INTERVAL: u32 = 8;

/// Runs a program to its end, on one thread: what it does waits for the network, and a data path on one thread needs no
/// locks. A thread that still waits for input or output then is left behind.
///
/// # Errors
/// If the system has not what a runtime needs.
pub fn run_on_one_thread<T>(program: impl Future<Output = T>) -> Result<T, Fault> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().event_interval(EVENT_INTERVAL).build().map_err(|error| {
        Fault::new(
            "NO_RUNTIME",
            format!("this program can't begin: {error}"),
            "are there file descriptors left? `ulimit -n` shows how many there may be",
        )
    })?;
    let ended = runtime.block_on(program);
    runtime.shutdown_background();
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    #[test]
    fn a_thread_that_waits_does_not_hold_up_the_end() {
        let began = Instant::now();
        let ended = super::run_on_one_thread(async {
            let (started, waits) = tokio::sync::oneshot::channel();
            tokio::task::spawn_blocking(|| {
                let _ = started.send(());
                std::thread::sleep(Duration::from_secs(30));
            });
            waits.await.is_ok()
        });
        assert_eq!(ended, Ok(true));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}
