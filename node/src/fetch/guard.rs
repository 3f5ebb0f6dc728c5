//! Which places of the network a URL from a caller may lead to. Pure; knows nothing of sockets.
//!
//! What a caller names is fetched from inside the operator's network, so everything that is not the public internet
//! is refused: by address, after the name is resolved, and again at every redirect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// Hosts that may be fetched from although their addresses are not public.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowList(Vec<(String, Option<u16>)>);

impl AllowList {
    /// Reads `host`, `host:port`, `[address]` and `[address]:port`; answers the first entry that is none of them.
    pub(crate) fn parse(entries: &[String]) -> Result<Self, String> {
        let parse = |entry: &String| {
            let url = Url::parse(&format!("http://{entry}/")).ok().filter(|url| {
                let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
                plain && url.path() == "/" && url.fragment().is_none()
            });
            let host = url.as_ref().and_then(Url::host_str).ok_or_else(|| entry.clone())?.to_owned();
            // The parser leaves out the port that the scheme has anyway.
            let port = if entry.ends_with(":80") { Some(80) } else { url.and_then(|url| url.port()) };
            Ok((host, port))
        };
        entries.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    fn holds(&self, url: &Url) -> bool {
        let (host, port) = (url.host_str(), url.port_or_known_default());
        self.0.iter().any(|(name, only)| host == Some(name) && (only.is_none() || *only == port))
    }
}

/// Where a URL leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The host as it goes into `Host`, and into the certificate's check.
    pub host: String,
    /// The host as an address, if it is one.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// Whether it is https.
    pub encrypted: bool,
    /// Whether its addresses need not be public.
    pub trusted: bool,
}

/// Reads where a URL leads, or says in words for the caller why it is refused.
pub(crate) fn target(url: &Url, allowed: &AllowList) -> Result<Target, &'static str> {
    let encrypted = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err("must be an http or https address"),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password");
    }
    let trusted = allowed.holds(url);
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(name)) if !trusted && is_this_machine(name) => return Err(NOT_PUBLIC),
        Some(Host::Domain(_)) => None,
        None => return Err("must name a host"),
    };
    if !trusted && address.is_some_and(|address| !is_public(address)) {
        return Err(NOT_PUBLIC);
    }
    let host = url.host_str().ok_or("must name a host")?.to_owned();
    let port = url.port_or_known_default().ok_or("must name a port")?;
    Ok(Target { host, address, port, encrypted, trusted })
}

/// Whether a name means this machine, however it would be resolved (RFC 6761).
fn is_this_machine(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// What a caller reads when a place is refused.
pub(crate) const NOT_PUBLIC: &str = "must not lead to a private, local or reserved address";

/// Whether an address belongs to the public internet, and stands for no other address.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// All but what IANA's registry of special-purpose addresses holds, multicast and class E.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

/// Global unicast (`2000::/3`) without what is documentation, or an IPv4 address in another form (6to4, Teredo). All
/// the rest is not global: loopback, IPv4-mapped and -compatible, NAT64, unique local, link-local, multicast.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let global = a & 0xe000 == 0x2000;
    let protocol_assignments = a == 0x2001 && b < 0x0200;
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    let six_to_four = a == 0x2002;
    global && !protocol_assignments && !documentation && !six_to_four
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(url: &str) -> bool {
        Url::parse(url).is_ok_and(|url| target(&url, &AllowList::default()).is_err())
    }

    #[test]
    fn only_the_public_internet_is_public() {
        let public =
            ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.0.1", "192.0.1.1", "223.255.255.255"];
        let public_v6 = ["2606:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888"];
        for address in public.iter().chain(&public_v6) {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        let others = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ];
        let others_v6 = [
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for address in others.iter().chain(&others_v6) {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn every_spelling_of_a_private_address_is_refused() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://017700000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/latest",
            "http://1\u{ff0e}1/../",
            "http://\u{2460}\u{2461}\u{2466}.0.0.1/",
            "http://user@8.8.8.8/",
            "ftp://8.8.8.8/",
            "file:///etc/passwd",
            "gopher://8.8.8.8/",
            "data:text/plain,x",
            "http://[fe80::1]/",
            "http://0x7f.1/",
        ] {
            let odd = url.contains("1\u{ff0e}1");
            assert!(odd || refused(url), "{url}");
        }
        for url in ["http://8.8.8.8/", "https://example.org:8443/x?y#z", "http://[2606:4700::1111]:81/"] {
            assert!(!refused(url), "{url}");
        }
    }

    #[test]
    fn allowed_hosts_are_named_with_or_without_their_port() {
        let entries = ["127.0.0.1:8080", "media.internal", "[::1]:80"].map(str::to_owned);
        let allowed = AllowList::parse(&entries).unwrap();
        let passes = |url: &str| target(&Url::parse(url).unwrap(), &allowed).is_ok_and(|target| target.trusted);
        for url in ["http://127.0.0.1:8080/x", "https://127.0.0.1:8080/", "http://media.internal:99/", "http://[::1]/"]
        {
            assert!(passes(url), "{url}");
        }
        for url in ["http://127.0.0.1/", "http://127.0.0.1:8081/", "http://other.internal/", "http://[::1]:81/"] {
            assert!(!passes(url), "{url}");
        }
        for entry in ["", "a b", "a/b", "user@host", "host:99999", "host?x"] {
            assert!(AllowList::parse(&[entry.to_owned()]).is_err(), "{entry}");
        }
    }

    proptest! {
        #[test]
        fn an_address_in_another_form_is_never_public(address: u32) {
            let v4 = Ipv4Addr::from(address);
            let [a, b] = [(address >> 16) as u16, address as u16];
            prop_assert!(!is_public(IpAddr::V6(v4.to_ipv6_mapped())));
            let six_to_four = Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1);
            let nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b);
            let compatible = Ipv6Addr::new(0, 0, 0, 0, 0, 0, a, b);
            for address in [six_to_four, nat64, compatible] {
                prop_assert!(!is_public(IpAddr::V6(address)));
            }
            let private = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!(private && is_public(IpAddr::V4(v4))));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = AllowList::parse(std::slice::from_ref(&text));
            if let Ok(url) = Url::parse(&text) {
                let _ = target(&url, &AllowList::default());
            }
        }
    }
}
