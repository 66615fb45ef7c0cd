//! The addresses of this machine. Refuses: to choose between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The unicast addresses of all interfaces that are up, without IPv6 link-local ones (peers cannot reach them
/// without a scope).
pub(crate) fn addresses() -> std::io::Result<Vec<IpAddr>> {
    let mut head: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `head` is a valid out pointer; on success it owns a list that is freed below.
    if unsafe { libc::getifaddrs(&mut head) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mut out = Vec::new();
    let mut at = head;
    while !at.is_null() {
        // SAFETY: `at` walks the list getifaddrs made, which lives until freeifaddrs.
        let entry = unsafe { &*at };
        if entry.ifa_flags & libc::IFF_UP as u32 != 0 {
            // SAFETY: `ifa_addr` is null or points to a sockaddr of the family it declares.
            out.extend(unsafe { address(entry.ifa_addr) });
        }
        at = entry.ifa_next;
    }
    // SAFETY: `head` came from getifaddrs and is freed once.
    unsafe { libc::freeifaddrs(head) };
    out.dedup();
    Ok(out)
}

/// # Safety
/// `addr` is null or points to a socket address of the family it declares.
unsafe fn address(addr: *const libc::sockaddr) -> Option<IpAddr> {
    if addr.is_null() {
        return None;
    }
    // SAFETY: per contract; the family says which concrete type is behind the pointer.
    unsafe {
        match i32::from((*addr).sa_family) {
            libc::AF_INET => {
                let v4 = &*addr.cast::<libc::sockaddr_in>();
                Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                let v6 = Ipv6Addr::from((*addr.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr);
                (v6.segments()[0] & 0xffc0 != 0xfe80).then_some(v6.into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_is_among_them() {
        assert!(super::addresses().unwrap().iter().any(std::net::IpAddr::is_loopback));
    }
}
