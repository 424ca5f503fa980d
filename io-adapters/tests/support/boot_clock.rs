//! A hand for the clock that boringtun reads, for tests; included by path.
//!
//! boringtun asks the operating system for the time, and its feature for a mocked clock must not be near a
//! build that ships: cargo unifies features, and the server's WireGuard would stand still. So a test that
//! includes this file answers the question itself: the linker takes a program's own `clock_gettime` before
//! the C library's. The engine under test is then the very code that ships, built as it is for everything
//! else. The other clocks, and threads that have set no time, are asked of the kernel.

use core::cell::Cell;
use proto_core::time::Time;

/// The wall clock at time zero, in seconds: any will do.
pub(crate) const WALL_SECS: u64 = 1_700_000_000;

thread_local! {
    static NOW: Cell<Option<Time>> = const { Cell::new(None) };
}

/// From now on it is `now` on this thread, by the clock since boot and by the wall's.
pub(crate) fn set(now: Time) {
    NOW.set(Some(now));
}

/// What programs and libraries call to read a clock.
///
/// # Safety
/// As in C: `out` points to a place for the time.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    out: *mut libc::timespec,
) -> libc::c_int {
    let base = match clock {
        libc::CLOCK_BOOTTIME => 0,
        libc::CLOCK_REALTIME => WALL_SECS,
        _ => return ask_the_kernel(clock, out),
    };
    let Some(now) = NOW.get() else { return ask_the_kernel(clock, out) };
    let micros = now.as_micros();
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(base + micros / 1_000_000).unwrap_or(0),
        tv_nsec: libc::c_long::try_from(micros % 1_000_000).unwrap_or(0) * 1_000,
    };
    // SAFETY: the caller says that there is a place for it.
    unsafe { out.write(time) };
    0
}

#[allow(unsafe_code)]
fn ask_the_kernel(clock: libc::clockid_t, out: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the system call writes one time to `out`, which our caller was given for that.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, out) };
    libc::c_int::try_from(result).unwrap_or(-1)
}
