//! As much of X.509 as a pinned certificate needs: its dates and its subject's common name (RFC 5280, 4.1).
//! Everything else about certificates is rustls'.

/// What we want of a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Certificate {
    /// Not before and not after, in seconds since 1970.
    pub validity: (u64, u64),
    /// The subject's common name, if it has one.
    pub common_name: Option<String>,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const OID: u8 = 0x06;
/// `[0]`, constructed: the version.
const VERSION: u8 = 0xa0;
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

impl Certificate {
    /// Reads a certificate's DER form; none if it is not one.
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        let (mut body, _) = expect(der, SEQUENCE)?;
        let (tbs, _) = expect(body, SEQUENCE)?;
        body = tbs;
        if body.first() == Some(&VERSION) {
            body = element(body)?.2;
        }
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            body = element(body)?.2;
        }
        let (dates, rest) = expect(body, SEQUENCE)?;
        let (tag, from, dates) = element(dates)?;
        let from = time(tag, from)?;
        let (tag, to, _) = element(dates)?;
        let to = time(tag, to)?;
        let (subject, _) = expect(rest, SEQUENCE)?;
        Some(Self { validity: (from, to), common_name: common_name(subject) })
    }
}

fn common_name(mut names: &[u8]) -> Option<String> {
    while !names.is_empty() {
        let (mut set, rest) = expect(names, SET)?;
        names = rest;
        while !set.is_empty() {
            let (pair, more) = expect(set, SEQUENCE)?;
            set = more;
            let (oid, value) = expect(pair, OID)?;
            if oid == COMMON_NAME {
                return Some(String::from_utf8_lossy(element(value)?.1).into_owned());
            }
        }
    }
    None
}

/// The next element: its tag, its content and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let digits = usize::from(first & 0x7f);
        if digits == 0 || digits > 4 {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(digits)?;
        (digits.iter().fold(0, |n, &d| n << 8 | usize::from(d)), rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// The content of the next element, which must have this tag, and what follows it.
fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(der)?;
    (found == tag).then_some((content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` in seconds since 1970 (RFC 5280, 4.1.2.5); 0 for what was before.
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match tag {
        UTC_TIME if text.len() == 12 => {
            let (year, rest) = text.split_at(2);
            let year: u64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME if text.len() == 14 => {
            let (year, rest) = text.split_at(4);
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let field = |i: usize| rest.get(2 * i..2 * i + 2).and_then(|t| t.parse::<u64>().ok());
    let (month, day) = (field(0)?, field(1)?);
    if !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let seconds = field(2)? * 3_600 + field(3)? * 60 + field(4)?;
    Some(days(year, month, day).saturating_mul(86_400).saturating_add(seconds))
}

/// Days since 1970-01-01 of a date of the Gregorian calendar; 0 for what was before.
fn days(year: u64, month: u64, day: u64) -> u64 {
    // Years that begin in March put the leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.saturating_sub(1), month + 9) };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    (before + (month * 153 + 2) / 5 + day).saturating_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_from_1970() {
        assert_eq!(time(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(time(UTC_TIME, b"000301000000Z"), Some(951_868_800));
        assert_eq!(time(GENERALIZED_TIME, b"20240229235959Z"), Some(1_709_251_199));
        assert_eq!(time(GENERALIZED_TIME, b"99991231235959Z"), Some(253_402_300_799));
        for bad in [&b"7001010000Z"[..], b"701301000000Z", b"70010100000\xffZ", b"", b"700101000000"] {
            assert_eq!(time(UTC_TIME, bad), None);
        }
    }

    #[test]
    fn cut_or_changed_certificates_are_refused_or_read_but_never_a_panic() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["relay.test".into()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "relay");
        let der = params.self_signed(&key).unwrap().der().to_vec();
        assert_eq!(Certificate::parse(&der).unwrap().common_name.as_deref(), Some("relay"));
        for end in 0..der.len() {
            let _ = Certificate::parse(&der[..end]);
        }
        for i in 0..der.len() {
            let mut changed = der.clone();
            changed[i] ^= 0xff;
            let _ = Certificate::parse(&changed);
        }
    }
}
