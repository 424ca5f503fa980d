//! What the operating system knows of this process, and how it starts others.

use std::path::Path;

/// Memory in use, resident set, in bytes; none where the system does not tell.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

/// Memory that this process may use, in bytes: the machine's, or as much of it as the process's control group has; none
/// where the system does not tell.
#[must_use]
pub fn memory_bytes() -> Option<u64> {
    let all = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = all.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::/"));
    // Each group is bounded by those above it, too.
    let groups = group.map(Path::new).into_iter().flat_map(Path::ancestors);
    let bound = |group: &Path| -> Option<u64> {
        let file = Path::new("/sys/fs/cgroup").join(group).join("memory.max");
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    };
    groups.filter_map(bound).chain([kib * 1_024]).min()
}

/// Raises the number of files that may be open to what the system allows: by default it is 1,024, for programs that
/// know no better.
///
/// # Errors
/// If the system refuses.
#[allow(unsafe_code, reason = "calls of the C library with a structure of our own")]
pub fn open_files() -> std::io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure outlives the call, which fills it.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    if limit.rlim_cur == limit.rlim_max {
        return Ok(());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the structure outlives the call, which only reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Gives memory that is free inside this process back to the system. An allocator keeps what lies between things
/// still in use; after a crowd has come and gone that may be all of what it took. Costs milliseconds.
#[allow(unsafe_code, reason = "a call of the C library without arguments that matter")]
pub fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time from any thread, and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets a program run in a session of its own, without a terminal that could be asked for anything: what it starts
/// forms process groups of that session, and the first one has its own number.
#[cfg(unix)]
#[allow(unsafe_code, reason = "there is no other way to do something between fork and exec")]
pub fn in_own_session(command: &mut tokio::process::Command) {
    // SAFETY: between fork and exec only calls that are safe in a signal handler are allowed; setsid is one, and
    // nothing is allocated here.
    unsafe {
        command.pre_exec(|| if libc::setsid() < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) });
    }
}

/// Signals that end, stop or interrupt a program of a person, unless it wants otherwise.
#[cfg(unix)]
const USUAL: [libc::c_int; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGALRM,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// Has a program begin with the signals as a login gives them. What this process ignores it would ignore as well: all
/// that `nohup` or a script's `&` starts ignores some.
#[cfg(unix)]
#[allow(unsafe_code, reason = "there is no other way to do something between fork and exec")]
pub fn with_usual_signals(command: &mut tokio::process::Command) {
    // SAFETY: between fork and exec only calls that are safe in a signal handler are allowed; signal is one, and
    // nothing is allocated here. The default action is no function that could be called at the wrong time.
    unsafe {
        command.pre_exec(|| {
            for signal in USUAL {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_program_ignores_nothing_that_its_starter_ignores() {
        let run = async |usual: bool| {
            let mut command = tokio::process::Command::new("sh");
            command.args(["-c", "kill -QUIT $$; echo went on"]);
            if usual {
                super::with_usual_signals(&mut command);
            }
            command.output().await.unwrap()
        };
        let ignored = ignore(libc::SIGQUIT);
        let [as_it_is, usual] = [run(false).await, run(true).await];
        drop(ignored);
        assert_eq!(as_it_is.stdout, b"went on\n", "the shell inherits what is ignored");
        assert_eq!(usual.stdout, b"");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&usual.status), Some(libc::SIGQUIT));
    }

    /// Ignores a signal that no other test here sends, until it is dropped.
    #[allow(unsafe_code, reason = "the standard library ignores no signals")]
    fn ignore(signal: libc::c_int) -> impl Drop {
        struct Before(libc::c_int, libc::sighandler_t);
        impl Drop for Before {
            fn drop(&mut self) {
                // SAFETY: it is the handler that was there before.
                unsafe { libc::signal(self.0, self.1) };
            }
        }
        // SAFETY: to ignore a signal calls no function.
        Before(signal, unsafe { libc::signal(signal, libc::SIG_IGN) })
    }

    #[tokio::test]
    async fn a_program_leads_its_own_session() {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", "echo $$ $(cut -d' ' -f6,7 /proc/$$/stat)"]);
        super::in_own_session(&mut command);
        let out = command.output().await.unwrap();
        let said = String::from_utf8(out.stdout).unwrap();
        let [process, session, terminal] = said.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{said}")
        };
        assert_eq!((process, terminal), (session, "0"), "{said}");
    }

    #[test]
    fn a_process_uses_less_memory_than_it_may() {
        let (used, may) = (super::resident_bytes().unwrap(), super::memory_bytes().unwrap());
        assert!(used < may, "{used} of {may}");
    }

    #[test]
    fn as_many_files_may_be_open_as_the_system_allows() {
        super::open_files().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let mut numbers = line.split_whitespace();
        assert_eq!(numbers.next(), numbers.next(), "{line}");
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn what_is_free_is_given_back() {
        // Tests beside this one take memory meanwhile: that it is seen once is enough.
        let given = (0..10).any(|_| {
            // Every other piece stays in use.
            let mut used: Vec<_> = (0..8_192).map(|_| Some(vec![1_u8; 8 << 10])).collect();
            used.iter_mut().step_by(2).for_each(|piece| *piece = None);
            let before = super::resident_bytes().unwrap();
            super::give_memory_back();
            let after = super::resident_bytes().unwrap();
            after + (12 << 20) < before && used.len() == 8_192
        });
        assert!(given);
    }

    #[test]
    fn memory_that_is_used_is_counted() {
        let before = super::resident_bytes().unwrap();
        let used = vec![1_u8; 32 << 20];
        let after = super::resident_bytes().unwrap();
        assert!(after > before + (24 << 20), "{before} {after} {}", used.len());
    }
}
