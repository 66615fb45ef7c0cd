//! Which addresses belong to the public Internet. The others reach this machine, its neighbours or a cloud's
//! metadata, and somebody else's URL must not lead there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of IPv4: network, bits, what it is.
type Range4 = (Ipv4Addr, u32, &'static str);
/// A range of IPv6.
type Range6 = (Ipv6Addr, u32, &'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

const fn v6(a: u16, b: u16, c: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
}

/// IANA's special-purpose registry (RFC 6890 and its updates), and what clouds put elsewhere.
const NOT_PUBLIC_4: &[Range4] = &[
    (v4(0, 0, 0, 0), 8, "unspecified"),
    (v4(10, 0, 0, 0), 8, "private"),
    (v4(100, 64, 0, 0), 10, "behind a carrier's NAT"),
    (v4(127, 0, 0, 0), 8, "loopback"),
    (v4(168, 63, 129, 16), 32, "a cloud's metadata"),
    (v4(169, 254, 0, 0), 16, "link-local"),
    (v4(172, 16, 0, 0), 12, "private"),
    (v4(192, 0, 0, 0), 24, "reserved"),
    (v4(192, 0, 2, 0), 24, "for documentation"),
    (v4(192, 88, 99, 0), 24, "a 6to4 relay"),
    (v4(192, 168, 0, 0), 16, "private"),
    (v4(198, 18, 0, 0), 15, "for benchmarks"),
    (v4(198, 51, 100, 0), 24, "for documentation"),
    (v4(203, 0, 113, 0), 24, "for documentation"),
    (v4(224, 0, 0, 0), 4, "multicast"),
    (v4(240, 0, 0, 0), 4, "reserved"),
];

/// Parts of 2000::/3 that are not public all the same.
const NOT_PUBLIC_6: &[Range6] = &[
    (v6(0x2001, 0, 0), 23, "reserved"),
    (v6(0x2001, 0xdb8, 0), 32, "for documentation"),
    (v6(0x2002, 0, 0), 16, "6to4"),
    (v6(0x3fff, 0, 0), 20, "for documentation"),
];

/// What is special about `ip`; `None` for an address of the public Internet.
pub fn special(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => special_4(ip),
        IpAddr::V6(ip) => special_6(ip),
    }
}

fn special_4(ip: Ipv4Addr) -> Option<&'static str> {
    let within = |(network, bits, _): &&Range4| (ip.to_bits() ^ network.to_bits()) >> (32 - bits) == 0;
    NOT_PUBLIC_4.iter().find(within).map(|(_, _, what)| *what)
}

fn special_6(ip: Ipv6Addr) -> Option<&'static str> {
    if ip.is_unspecified() {
        return Some("unspecified");
    }
    if ip.is_loopback() {
        return Some("loopback");
    }
    // An IPv4 address in disguise is what it is: mapped (RFC 4291), or behind the well-known NAT64 prefix (RFC 6052).
    let last = Ipv4Addr::from_bits(ip.to_bits() as u32);
    if matches!(ip.segments(), [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..]) {
        return special_4(last);
    }
    let [first, ..] = ip.segments();
    match first {
        0x2000..=0x3fff => {
            let within = |(network, bits, _): &&Range6| (ip.to_bits() ^ network.to_bits()) >> (128 - bits) == 0;
            NOT_PUBLIC_6.iter().find(within).map(|(_, _, what)| *what)
        }
        0xfc00..=0xfdff => Some("private"),
        0xfe80..=0xfebf => Some("link-local"),
        0xff00.. => Some("multicast"),
        _ => Some("reserved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_belong_to_the_internet_is_named() {
        for (text, what) in [
            ("0.0.0.0", "unspecified"),
            ("10.255.255.255", "private"),
            ("100.100.100.200", "behind a carrier's NAT"),
            ("127.9.9.9", "loopback"),
            ("169.254.169.254", "link-local"),
            ("168.63.129.16", "a cloud's metadata"),
            ("172.31.0.1", "private"),
            ("192.168.1.1", "private"),
            ("239.1.1.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::127.0.0.1", "reserved"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:169.254.169.254", "link-local"),
            ("64:ff9b::10.0.0.1", "private"),
            ("64:ff9b:1::10.0.0.1", "reserved"),
            ("2002:7f00:1::", "6to4"),
            ("2001::1", "reserved"),
            ("2001:db8::1", "for documentation"),
            ("fd00:ec2::254", "private"),
            ("fe80::1", "link-local"),
            ("fec0::1", "reserved"),
            ("ff02::1", "multicast"),
        ] {
            assert_eq!(special(text.parse().unwrap()), Some(what), "{text}");
        }
    }

    #[test]
    fn what_does_is_left_alone() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2606:4700::1",
        ] {
            assert_eq!(special(text.parse().unwrap()), None, "{text}");
        }
    }
}
