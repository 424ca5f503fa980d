//! What each request does to the disk.

use super::listing;
use super::wire::{Answer, Attributes, DATA_MAX, Failure, Fields, PACKET_MAX, Status};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timestamps};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions, ReadDir};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files and folders that a visitor may have open at once.
const OPEN_MAX: usize = 1_000;
/// Entries of a folder in one answer; with names of 255 bytes they fit in a packet twice over.
const ENTRIES: usize = 100;
/// What OpenSSH's clients know to use.
const EXTENSIONS: &[(&str, &str)] = &[
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

type Result<T = Answer> = std::result::Result<T, Failure>;

/// A visitor's open files, and where relative names begin.
pub(super) struct Files {
    home: PathBuf,
    open: HashMap<u32, Open>,
    next: u32,
}

enum Open {
    File(File),
    Folder { path: PathBuf, entries: ReadDir },
}

impl Files {
    pub(super) fn new(home: PathBuf) -> Self {
        Self { home, open: HashMap::new(), next: 0 }
    }

    /// Does what a request says; the answer's bytes.
    pub(super) fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let mut fields = Fields(request);
        let head = fields.byte().and_then(|kind| Ok((kind, fields.u32()?)));
        let answer = match head {
            Ok((1, _)) => Answer::version(EXTENSIONS),
            Ok((kind, id)) => self
                .serve(kind, id, &mut fields)
                .unwrap_or_else(|failure| Answer::status(id, failure.status, &failure.words)),
            Err(failure) => Answer::status(0, failure.status, &failure.words),
        };
        answer.finish()
    }

    fn serve(&mut self, kind: u8, id: u32, fields: &mut Fields<'_>) -> Result {
        match kind {
            3 => self.open_file(id, fields),
            4 => {
                let handle = handle(fields)?;
                self.open.remove(&handle).ok_or_else(unknown_handle)?;
                Ok(done(id))
            }
            5 => {
                let (file, offset, length) = (self.file(fields)?, fields.u64()?, fields.u32()?);
                Answer::data(id, (length as usize).min(DATA_MAX), |buffer| file.read_at(buffer, offset))
            }
            6 => {
                let (file, offset, data) = (self.file(fields)?, fields.u64()?, fields.string()?);
                file.write_all_at(data, offset)?;
                Ok(done(id))
            }
            7 => Ok(Answer::attributes(id, &self.path(fields)?.symlink_metadata()?)),
            8 => Ok(Answer::attributes(id, &self.metadata(fields)?)),
            9 => {
                let path = self.path(fields)?;
                change(&path, fields.attributes()?, AtFlags::empty())?;
                Ok(done(id))
            }
            10 => {
                let file = self.file(fields)?;
                change_open(file, fields.attributes()?)?;
                Ok(done(id))
            }
            11 => {
                let path = self.path(fields)?;
                let entries = path.read_dir()?;
                self.keep(id, Open::Folder { path, entries })
            }
            12 => self.entries(id, fields),
            13 => self.on_path(id, fields, |path| Ok(std::fs::remove_file(path)?)),
            14 => {
                let path = self.path(fields)?;
                let mode = fields.attributes()?.mode.unwrap_or(0o777);
                rustix::fs::mkdir(&path, Mode::from_raw_mode(mode & 0o777))?;
                Ok(done(id))
            }
            15 => self.on_path(id, fields, |path| Ok(std::fs::remove_dir(path)?)),
            16 => Ok(one_name(id, &resolve(&self.path(fields)?)?)),
            17 => Ok(Answer::attributes(id, &self.path(fields)?.metadata()?)),
            18 => self.on_two(id, fields, rename_unless_taken),
            19 => Ok(one_name(id, &self.path(fields)?.read_link()?)),
            20 => {
                // OpenSSH has the two the other way round than the draft, and everybody follows it.
                let (target, link) = (fields.string()?, self.path(fields)?);
                std::os::unix::fs::symlink(OsStr::from_bytes(target), link)?;
                Ok(done(id))
            }
            200 => self.extension(id, fields),
            _ => Err(unsupported()),
        }
    }

    fn extension(&mut self, id: u32, fields: &mut Fields<'_>) -> Result {
        match fields.string()? {
            b"posix-rename@openssh.com" => self.on_two(id, fields, |from, to| Ok(std::fs::rename(from, to)?)),
            b"hardlink@openssh.com" => self.on_two(id, fields, |from, to| Ok(std::fs::hard_link(from, to)?)),
            b"statvfs@openssh.com" => {
                let path = self.path(fields)?;
                Ok(space(id, &rustix::fs::statvfs(&path)?))
            }
            b"fstatvfs@openssh.com" => {
                let file = self.file(fields)?;
                Ok(space(id, &rustix::fs::fstatvfs(file)?))
            }
            b"fsync@openssh.com" => {
                self.file(fields)?.sync_all()?;
                Ok(done(id))
            }
            b"lsetstat@openssh.com" => {
                let path = self.path(fields)?;
                change(&path, fields.attributes()?, AtFlags::SYMLINK_NOFOLLOW)?;
                Ok(done(id))
            }
            b"limits@openssh.com" => {
                let [packet, data, open] = [PACKET_MAX, DATA_MAX, OPEN_MAX].map(|limit| limit as u64);
                Ok(Answer::numbers(id, &[packet, data, data, open]))
            }
            b"expand-path@openssh.com" => {
                let path = fields.string()?;
                let path = match path.strip_prefix(b"~") {
                    Some(rest) if rest.is_empty() || rest.starts_with(b"/") => {
                        self.home.join(OsStr::from_bytes(rest.strip_prefix(b"/").unwrap_or(rest)))
                    }
                    _ => self.home.join(OsStr::from_bytes(path)),
                };
                Ok(one_name(id, &resolve(&path)?))
            }
            _ => Err(unsupported()),
        }
    }

    fn open_file(&mut self, id: u32, fields: &mut Fields<'_>) -> Result {
        let (path, wanted, attributes) = (self.path(fields)?, fields.u32()?, fields.attributes()?);
        let mut flags = match wanted & 0x3 {
            0x3 => OFlags::RDWR,
            0x2 => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        for (bit, flag) in
            [(0x4, OFlags::APPEND), (0x8, OFlags::CREATE), (0x10, OFlags::TRUNC), (0x20, OFlags::EXCL)]
        {
            flags.set(flag, wanted & bit != 0);
        }
        let mode = Mode::from_raw_mode(attributes.mode.unwrap_or(0o666) & 0o7777);
        let file = File::from(rustix::fs::open(&path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, mode)?);
        self.keep(id, Open::File(file))
    }

    fn keep(&mut self, id: u32, open: Open) -> Result {
        if self.open.len() >= OPEN_MAX {
            return Err(Failure::new(Status::Failure, "too many files are open"));
        }
        // With fewer than a thousand open, a free number is near.
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let handle = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(handle, open);
        Ok(Answer::handle(id, handle))
    }

    fn entries(&mut self, id: u32, fields: &mut Fields<'_>) -> Result {
        let Some(Open::Folder { path, entries }) = self.open.get_mut(&handle(fields)?) else {
            return Err(unknown_handle());
        };
        let now = SystemTime::now();
        let mut names = Vec::new();
        for entry in entries.by_ref().take(ENTRIES) {
            let name = entry?.file_name();
            // What has gone meanwhile is still listed, as a name alone.
            let metadata = path.join(&name).symlink_metadata().ok();
            let name = name.into_vec();
            let line = metadata.as_ref().map_or_else(|| name.clone(), |m| listing::line(&name, m, now));
            names.push((name, line, metadata));
        }
        if names.is_empty() {
            return Err(Failure::new(Status::End, "no more entries"));
        }
        Ok(Answer::names(id, &names))
    }

    fn on_path(&self, id: u32, fields: &mut Fields<'_>, act: impl FnOnce(&Path) -> Result<()>) -> Result {
        act(&self.path(fields)?)?;
        Ok(done(id))
    }

    fn on_two(
        &self,
        id: u32,
        fields: &mut Fields<'_>,
        act: impl FnOnce(&Path, &Path) -> Result<()>,
    ) -> Result {
        act(&self.path(fields)?, &self.path(fields)?)?;
        Ok(done(id))
    }

    fn path(&self, fields: &mut Fields<'_>) -> Result<PathBuf> {
        Ok(self.home.join(OsStr::from_bytes(fields.string()?)))
    }

    fn file(&self, fields: &mut Fields<'_>) -> Result<&File> {
        match self.open.get(&handle(fields)?) {
            Some(Open::File(file)) => Ok(file),
            _ => Err(unknown_handle()),
        }
    }

    fn metadata(&self, fields: &mut Fields<'_>) -> Result<Metadata> {
        match self.open.get(&handle(fields)?) {
            Some(Open::File(file)) => Ok(file.metadata()?),
            Some(Open::Folder { path, .. }) => Ok(path.metadata()?),
            None => Err(unknown_handle()),
        }
    }
}

fn handle(fields: &mut Fields<'_>) -> Result<u32> {
    let bytes = fields.string()?.try_into().map_err(|_| unknown_handle())?;
    Ok(u32::from_be_bytes(bytes))
}

fn unknown_handle() -> Failure {
    Failure::new(Status::Failure, "there is no such handle")
}

fn unsupported() -> Failure {
    Failure::new(Status::Unsupported, "this server does not know that request")
}

fn done(id: u32) -> Answer {
    Answer::status(id, Status::Ok, "")
}

fn one_name(id: u32, path: &Path) -> Answer {
    let name = path.as_os_str().as_bytes().to_vec();
    Answer::names(id, &[(name.clone(), name, None)])
}

/// The path without links and dots. Its last part need not exist: it may be a file to come.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) => Ok(folder.canonicalize()?.join(name)),
            _ => Err(error),
        },
        resolved => resolved,
    }
}

/// Version 3 has no way to ask for a replacement, so there is none.
fn rename_unless_taken(from: &Path, to: &Path) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::Errno;
        match rustix::fs::renameat_with(CWD, from, CWD, to, rustix::fs::RenameFlags::NOREPLACE) {
            // Not every file system can.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            renamed => return Ok(renamed?),
        }
    }
    if to.symlink_metadata().is_ok() {
        return Err(Failure::new(Status::Failure, "there is a file of that name"));
    }
    Ok(std::fs::rename(from, to)?)
}

fn change(path: &Path, to: Attributes, flags: AtFlags) -> Result<()> {
    if let Some(size) = to.size {
        File::options().write(true).open(path)?.set_len(size)?;
    }
    if let Some(mode) = to.mode {
        if flags.contains(AtFlags::SYMLINK_NOFOLLOW) && path.symlink_metadata()?.is_symlink() {
            return Err(Failure::new(Status::Unsupported, "links have no mode"));
        }
        std::fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))?;
    }
    if let Some(times) = to.times {
        rustix::fs::utimensat(CWD, path, &timestamps(times), flags)?;
    }
    if let Some((user, group)) = to.owner {
        let (user, group) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(group));
        rustix::fs::chownat(CWD, path, Some(user), Some(group), flags)?;
    }
    Ok(())
}

fn change_open(file: &File, to: Attributes) -> Result<()> {
    if let Some(size) = to.size {
        file.set_len(size)?;
    }
    if let Some(mode) = to.mode {
        file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
    }
    if let Some(times) = to.times {
        rustix::fs::futimens(file.as_fd(), &timestamps(times))?;
    }
    if let Some((user, group)) = to.owner {
        std::os::unix::fs::fchown(file, Some(user), Some(group))?;
    }
    Ok(())
}

fn timestamps((accessed, modified): (u32, u32)) -> Timestamps {
    let at = |seconds: u32| rustix::fs::Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    Timestamps { last_access: at(accessed), last_modification: at(modified) }
}

/// The room of a file system, in the order of OpenSSH's PROTOCOL.
fn space(id: u32, of: &rustix::fs::StatVfs) -> Answer {
    const READ_ONLY: u64 = 1;
    const NO_SUID: u64 = 2;
    let mut flags = 0;
    if of.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        flags |= READ_ONLY;
    }
    if of.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID) {
        flags |= NO_SUID;
    }
    let numbers = [
        of.f_bsize,
        of.f_frsize,
        of.f_blocks,
        of.f_bfree,
        of.f_bavail,
        of.f_files,
        of.f_ffree,
        of.f_favail,
        of.f_fsid,
        flags,
        of.f_namemax,
    ];
    Answer::numbers(id, &numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
        let mut packet = vec![kind, 0, 0, 0, 7];
        fields.iter().for_each(|field| packet.extend_from_slice(field));
        packet
    }

    fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn status(answer: &[u8]) -> u32 {
        assert_eq!(answer[4], 101, "{answer:?}");
        u32::from_be_bytes(answer[9..13].try_into().unwrap())
    }

    #[test]
    fn a_rename_never_replaces_unless_asked_to() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path().to_owned());
        std::fs::write(dir.path().join("one"), "1").unwrap();
        std::fs::write(dir.path().join("two"), "2").unwrap();
        let (one, two) = (string(b"one"), string(b"two"));
        assert_eq!(status(&files.answer(&packet(18, &[&one, &two]))), Status::Failure as u32);
        assert_eq!(std::fs::read(dir.path().join("two")).unwrap(), b"2");
        let posix = string(b"posix-rename@openssh.com");
        assert_eq!(status(&files.answer(&packet(200, &[&posix, &one, &two]))), Status::Ok as u32);
        assert_eq!(std::fs::read(dir.path().join("two")).unwrap(), b"1");
    }

    #[test]
    fn requests_that_are_none_are_answered_and_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path().to_owned());
        for bad in [&b""[..], &[3], &packet(3, &[]), &packet(9, &[&string(b"x")])] {
            assert_eq!(status(&files.answer(bad)), Status::BadMessage as u32, "{bad:?}");
        }
        assert_eq!(status(&files.answer(&packet(99, &[]))), Status::Unsupported as u32);
        assert_eq!(status(&files.answer(&packet(4, &[&string(&[0, 0, 0, 9])]))), Status::Failure as u32);
        let nowhere = packet(17, &[&string(b"nowhere")]);
        assert_eq!(status(&files.answer(&nowhere)), Status::NoSuchFile as u32);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn hostile_requests_never_panic(kind in 0_u8..30, rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let dir = tempfile::tempdir().unwrap();
            let mut files = Files::new(dir.path().to_owned());
            // Those that change something anywhere are left to the tests that know what they ask for.
            if ![3, 9, 13, 14, 15, 18, 20].contains(&kind) {
                files.answer(&[&[kind, 0, 0, 0, 1][..], &rest].concat());
            }
        }
    }
}
