//! A TUN device: IP packets from and to one network namespace.

use std::{fs::File, io, os::unix::fs::OpenOptionsExt};

use rustix::{
    fs::OFlags,
    io::Errno,
    ioctl::{Opcode, Setter, ioctl},
};

/// The kernel's `struct ifreq`, as far as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes the device `name` in this process's namespace; it may be moved to another, and is read here all the same.
pub(crate) fn open(name: &str) -> File {
    let device = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open("/dev/net/tun")
        .unwrap_or_else(|error| {
            panic!("the lab needs /dev/net/tun ({error}): run as root, or chmod 666 /dev/net/tun")
        });
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TUN | IFF_NO_PI,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads a `struct ifreq`, which `InterfaceRequest` has the size and layout of.
    unsafe { ioctl(&device, Setter::<TUNSETIFF, InterfaceRequest>::new(request)) }
        .expect("a fresh TUN device");
    device
}

/// Reads one packet; `None` when there is no more.
pub(crate) fn read<'a>(device: &File, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    match rustix::io::read(device, &mut *buffer) {
        Ok(length) => Some(&buffer[..length]),
        Err(Errno::AGAIN) => None,
        Err(error) => panic!("read from a TUN device: {error}"),
    }
}

/// Writes one packet; a namespace that is just going away does not take it.
pub(crate) fn write(device: &File, packet: &[u8]) {
    let _: io::Result<usize> = rustix::io::write(device, packet).map_err(io::Error::from);
}

/// `_IOW('T', 202, int)` of linux/if_tun.h.
const TUNSETIFF: Opcode = 0x4004_54ca;
const IFF_TUN: u16 = 1;
/// No header before the packet.
const IFF_NO_PI: u16 = 0x1000;
