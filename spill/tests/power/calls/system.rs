//! Takes the place of the system's calls that change files: the linker finds these before those of the C library, for Rust's library and sled alike.
//! Each does what it should by a plain system call; while a recording runs, what concerns its directory is recorded, or refused as on a full disk.
#![expect(unsafe_code, reason = "FFI: these have the C library's names and signatures")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::MutexGuard;

use libc::{mode_t, off_t, size_t, ssize_t};

use super::{Call, Recording, object_at, recording};

fn path_of(fd: c_int) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}

/// SAFETY: `path` is a C string, as the callers of the C library promise.
unsafe fn path(path: *const c_char) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()))
}

fn object_of(fd: c_int) -> Option<(u64, u64)> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: a plain system call into memory of the right size.
    let done = unsafe { libc::fstat(fd, stat.as_mut_ptr()) };
    // SAFETY: zeroed before, and filled when the call succeeded.
    let stat = unsafe { stat.assume_init() };
    (done == 0).then_some((stat.st_ino, stat.st_size.cast_unsigned()))
}

fn no_space() -> c_int {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() = libc::ENOSPC };
    -1
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open64(name: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let mut guard = recording();
    // SAFETY: as promised by the caller.
    let target = guard.as_ref().map(|_| unsafe { path(name) });
    let concerns = guard.as_ref().zip(target.as_ref()).is_some_and(|(recording, path)| recording.has(path));
    let changes = concerns && flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
    let before = target.as_ref().filter(|_| changes).and_then(|path| object_at(path));
    if changes && before.is_none() && guard.as_mut().is_some_and(Recording::refuses) {
        return no_space();
    }
    // SAFETY: the caller's arguments, passed on.
    let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, name, flags | libc::O_LARGEFILE, mode) } as c_int;
    if let (true, Some(recording), Some(path)) = (changes && fd >= 0, guard.as_mut(), target) {
        let object = object_at(&path).unwrap();
        match before {
            None => {
                let (parent, name) = recording.named(&path).unwrap();
                recording.calls.push(Call::Make { parent, name, object, directory: false });
            }
            Some(_) if flags & libc::O_TRUNC != 0 => recording.calls.push(Call::SetLength { object, length: 0 }),
            Some(_) => {}
        }
    }
    fd
}

fn written(fd: c_int, offset: Option<u64>, bytes: &[u8], write: impl FnOnce() -> isize) -> isize {
    let mut guard = recording();
    let concerns = guard.as_ref().is_some_and(|recording| path_of(fd).is_some_and(|path| recording.has(&path)));
    if !concerns {
        drop(guard);
        return write();
    }
    if guard.as_mut().is_some_and(Recording::refuses) {
        return no_space() as isize;
    }
    let (object, length) = object_of(fd).unwrap();
    // SAFETY: plain system calls on the caller's descriptor.
    let (flags, position) = unsafe { (libc::fcntl(fd, libc::F_GETFL), libc::lseek(fd, 0, libc::SEEK_CUR)) };
    let here = if flags & libc::O_APPEND != 0 { length } else { position.cast_unsigned() };
    let at = offset.unwrap_or(here);
    let done = write();
    if let (Some(recording), Ok(count)) = (guard.as_mut(), usize::try_from(done)) {
        recording.calls.push(Call::Write { object, offset: at, bytes: bytes[..count].to_vec() });
    }
    done
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
    // SAFETY: the caller's buffer holds `count` bytes.
    let slice = unsafe { std::slice::from_raw_parts(bytes.cast(), count) };
    // SAFETY: the caller's arguments, passed on.
    written(fd, None, slice, || unsafe { libc::syscall(libc::SYS_write, fd, bytes, count) as isize })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, count: size_t, offset: off_t) -> ssize_t {
    // SAFETY: the caller's buffer holds `count` bytes.
    let slice = unsafe { std::slice::from_raw_parts(bytes.cast(), count) };
    // SAFETY: the caller's arguments, passed on.
    let call = || unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, count, offset) as isize };
    written(fd, Some(offset.cast_unsigned()), slice, call)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(fd: c_int, length: off_t) -> c_int {
    let mut guard = recording();
    // SAFETY: the caller's arguments, passed on.
    let done = unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) } as c_int;
    if let Some(recording) = guard.as_mut().filter(|recording| done == 0 && path_of(fd).is_some_and(|path| recording.has(&path))) {
        recording.calls.push(Call::SetLength { object: object_of(fd).unwrap().0, length: length.cast_unsigned() });
    }
    done
}

fn synced(fd: c_int, call: impl FnOnce() -> c_int) -> c_int {
    let mut guard = recording();
    let done = call();
    if let Some(recording) = guard.as_mut().filter(|recording| done == 0 && path_of(fd).is_some_and(|path| recording.has(&path))) {
        recording.calls.push(Call::Sync { object: object_of(fd).unwrap().0 });
    }
    done
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: the caller's argument, passed on.
    synced(fd, || unsafe { libc::syscall(libc::SYS_fsync, fd) as c_int })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: the caller's argument, passed on.
    synced(fd, || unsafe { libc::syscall(libc::SYS_fdatasync, fd) as c_int })
}

/// Confirms nothing: that is how the kernel describes it.
#[unsafe(no_mangle)]
unsafe extern "C" fn sync_file_range(fd: c_int, offset: i64, length: i64, flags: u32) -> c_int {
    // SAFETY: the caller's arguments, passed on.
    unsafe { libc::syscall(libc::SYS_sync_file_range, fd, offset, length, flags) as c_int }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(name: *const c_char, mode: mode_t) -> c_int {
    let mut guard = recording();
    // SAFETY: as promised by the caller.
    let target = guard.as_ref().map(|_| unsafe { path(name) });
    // SAFETY: the caller's arguments, passed on.
    let done = unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, name, mode) } as c_int;
    if let (0, Some(recording), Some(path)) = (done, guard.as_mut(), target)
        && let Some((parent, name)) = recording.named(&path)
    {
        recording.calls.push(Call::Make { parent, name, object: object_at(&path).unwrap(), directory: true });
    }
    done
}

fn removed(target: Option<PathBuf>, guard: &mut MutexGuard<'static, Option<Recording>>, call: impl FnOnce() -> c_int) -> c_int {
    let place = guard.as_ref().zip(target).and_then(|(recording, path)| recording.named(&path));
    let done = call();
    if let (0, Some(recording), Some((parent, name))) = (done, guard.as_mut(), place) {
        recording.calls.push(Call::Remove { parent, name });
    }
    done
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(name: *const c_char) -> c_int {
    let mut guard = recording();
    // SAFETY: as promised by the caller.
    let target = guard.as_ref().map(|_| unsafe { path(name) });
    // SAFETY: the caller's arguments, passed on.
    removed(target, &mut guard, || unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, name, 0) as c_int })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rmdir(name: *const c_char) -> c_int {
    let mut guard = recording();
    // SAFETY: as promised by the caller.
    let target = guard.as_ref().map(|_| unsafe { path(name) });
    // SAFETY: the caller's arguments, passed on.
    removed(target, &mut guard, || unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, name, libc::AT_REMOVEDIR) as c_int })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(at: c_int, name: *const c_char, flags: c_int) -> c_int {
    let mut guard = recording();
    // SAFETY: as promised by the caller.
    let name_path = guard.as_ref().map(|_| unsafe { path(name) });
    let target = name_path.map(|name| if at == libc::AT_FDCWD { name } else { path_of(at).unwrap_or_default().join(name) });
    // SAFETY: the caller's arguments, passed on.
    removed(target, &mut guard, || unsafe { libc::syscall(libc::SYS_unlinkat, at, name, flags) as c_int })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let mut guard = recording();
    // SAFETY: as promised by the caller.
    let paths = guard.as_ref().map(|_| unsafe { (path(from), path(to)) });
    let names = guard.as_ref().zip(paths).and_then(|(recording, (from, to))| recording.named(&from).zip(recording.named(&to)));
    // SAFETY: the caller's arguments, passed on.
    let done = unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) } as c_int;
    if let (0, Some(recording), Some((from, to))) = (done, guard.as_mut(), names) {
        recording.calls.push(Call::Rename { from, to });
    }
    done
}
