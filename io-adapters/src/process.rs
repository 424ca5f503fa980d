//! What the operating system knows of this process.

/// Memory in use, resident set, in bytes; none where the system does not tell.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_that_is_used_is_counted() {
        let before = super::resident_bytes().unwrap();
        let used = vec![1_u8; 32 << 20];
        let after = super::resident_bytes().unwrap();
        assert!(after > before + (24 << 20), "{before} {after} {}", used.len());
    }
}
