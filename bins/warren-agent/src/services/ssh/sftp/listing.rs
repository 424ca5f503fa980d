//! The line by which people read a folder's entry, as `ls -l` writes it, in UTC.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Six months: older entries show their year and not their hour.
const RECENT: Duration = Duration::from_secs(182 * 86_400);
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The line of an entry.
pub(super) fn line(name: &[u8], metadata: &Metadata, now: SystemTime) -> Vec<u8> {
    let (nlink, uid, gid, size) = (metadata.nlink(), metadata.uid(), metadata.gid(), metadata.size());
    let (mode, date) = (mode(metadata.mode()), date(metadata.mtime(), now));
    let mut line = format!("{mode} {nlink:>4} {uid:<8} {gid:<8} {size:>8} {date} ").into_bytes();
    line.extend_from_slice(name);
    line
}

fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o060_000 => 'b',
        0o020_000 => 'c',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let execute = |bit: u32, special: u32, letter: char| match (mode & bit != 0, mode & special != 0) {
        (true, true) => letter,
        (false, true) => letter.to_ascii_uppercase(),
        (true, false) => 'x',
        (false, false) => '-',
    };
    let flag = |bit: u32, letter: char| if mode & bit != 0 { letter } else { '-' };
    [
        kind,
        flag(0o400, 'r'),
        flag(0o200, 'w'),
        execute(0o100, 0o4000, 's'),
        flag(0o040, 'r'),
        flag(0o020, 'w'),
        execute(0o010, 0o2000, 's'),
        flag(0o004, 'r'),
        flag(0o002, 'w'),
        execute(0o001, 0o1000, 't'),
    ]
    .iter()
    .collect()
}

fn date(seconds: i64, now: SystemTime) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days from 1 March of year 0, in cycles of 400 years: the leap day then comes last in a year.
    let days = days + 719_468;
    let (cycle, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 2 } else { month - 10 };
    let year = 400 * cycle + year + i64::from(month < 2);
    let name = usize::try_from(month).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"???");
    let then = u64::try_from(seconds).map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    match now.duration_since(then) {
        Ok(age) if age < RECENT => format!("{name} {day:>2} {:02}:{:02}", rest / 3_600, rest % 3_600 / 60),
        _ => format!("{name} {day:>2} {year:>5}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_ls_writes_them() {
        for (bits, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o041_777, "drwxrwxrwt"),
            (0o120_777, "lrwxrwxrwx"),
            (0o104_711, "-rws--x--x"),
            (0o102_644, "-rw-r-Sr--"),
        ] {
            assert_eq!(mode(bits), text);
        }
    }

    #[test]
    fn dates_show_the_hour_or_the_year() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(date(1_764_112_228, at(1_764_200_000)), "Nov 25 23:10");
        assert_eq!(date(1_764_112_228, at(1_864_200_000)), "Nov 25  2025");
        assert_eq!(date(951_782_400, at(1_764_200_000)), "Feb 29  2000");
        assert_eq!(date(0, at(10)), "Jan  1 00:00");
        assert_eq!(date(-1, at(1_764_200_000)), "Dec 31  1969");
    }
}
