//! Whose word is taken for where a client comes from: [`TrustedProxies`].

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use tokio::{io::AsyncReadExt, net::TcpStream};

/// The proxies and load balancers whose word is taken for where a client comes from, and the way in which they say it.
///
/// Without one, or where a connection comes from elsewhere, a client's address is that of its socket, and what it says
/// in a header of its own counts for nothing. With it, the address that a proxy names is the one that `on_connect`
/// sees, that [`Client::remote`](gobroke_core::Client::remote) gives, and that
/// [`max_connections_per_address`](gobroke_core::EndpointOptions::max_connections_per_address) counts.
///
/// ```
/// use gobroke_endpoints::{TcpEndpoint, TrustedProxies};
/// # fn program() -> Result<(), gobroke_endpoints::NetworkError> {
/// let endpoint = TcpEndpoint::bind("0.0.0.0:9000").behind(TrustedProxies::proxy_protocol(["10.0.0.0/8", "fd00::/8"])?);
/// # let _ = endpoint;
/// # Ok(())
/// # }
/// # program().unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct TrustedProxies {
    networks: Arc<[IpNet]>,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    XForwardedFor,
    Forwarded,
    ProxyProtocol,
}

/// What names the networks of [`TrustedProxies`] is neither a network nor an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network (10.0.0.0/8, fd00::/8) and no address")]
pub struct NetworkError(String);

impl TrustedProxies {
    /// Proxies in these networks (or at these addresses) append to the header `X-Forwarded-For`: for HTTP.
    ///
    /// It is read from its end, and the first address that is not a trusted proxy's own is the client's: what stands
    /// before it may have been written by anyone. Only this header is read, so a proxy may leave others as they came.
    ///
    /// # Errors
    /// Names the one that is no network.
    pub fn x_forwarded_for<I>(networks: I) -> Result<Self, NetworkError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::new(networks, Way::XForwardedFor)
    }

    /// The same for the header `Forwarded` (RFC 7239).
    ///
    /// # Errors
    /// Names the one that is no network.
    pub fn forwarded<I>(networks: I) -> Result<Self, NetworkError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::new(networks, Way::Forwarded)
    }

    /// Proxies in these networks (or at these addresses) begin each connection with a header of the PROXY protocol,
    /// version 1 or 2 (of HAProxy; nginx, Envoy and most cloud load balancers write it): for any transport over TCP
    /// that has an address of its own. With TLS it stands before the handshake.
    ///
    /// A connection from there without one is closed; one from elsewhere is taken as it is.
    ///
    /// # Errors
    /// Names the one that is no network.
    pub fn proxy_protocol<I>(networks: I) -> Result<Self, NetworkError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::new(networks, Way::ProxyProtocol)
    }

    fn new<I>(networks: I, way: Way) -> Result<Self, NetworkError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let parse = |text: I::Item| {
            let text = text.as_ref();
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse()
                .or_else(|_| address())
                .map_err(|_| NetworkError(text.to_owned()))
        };
        Ok(Self {
            networks: networks.into_iter().map(parse).collect::<Result<_, _>>()?,
            way,
        })
    }

    /// Whether the word of this address counts.
    pub(crate) fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Where the client of a request comes from that came over a connection from `remote`.
    #[cfg(any(feature = "ws", feature = "http"))]
    pub(crate) fn client(&self, remote: SocketAddr, headers: &hyper::HeaderMap) -> SocketAddr {
        let (name, read): (_, fn(&str) -> Option<Hop>) = match self.way {
            Way::XForwardedFor => ("x-forwarded-for", |item| hop(item.trim())),
            Way::Forwarded => ("forwarded", forwarded_for),
            Way::ProxyProtocol => return remote,
        };
        let mut client = Hop {
            address: remote.ip(),
            port: remote.port(),
        };
        let lines: Vec<_> = headers.get_all(name).iter().collect();
        for line in lines.into_iter().rev() {
            // What cannot be read names nobody, and neither does what stands before it.
            let Ok(line) = line.to_str() else { break };
            for item in line.rsplit(',') {
                if !self.trust(client.address) {
                    break;
                }
                match read(item) {
                    Some(named) => client = named,
                    None => return client.into(),
                }
            }
        }
        client.into()
    }

    /// Reads the header of the PROXY protocol where one has to come, and nothing behind it. Says whose address it names.
    ///
    /// # Errors
    /// It is none, or the connection breaks.
    pub(crate) async fn read_header(
        &self,
        stream: &mut TcpStream,
        remote: SocketAddr,
    ) -> io::Result<SocketAddr> {
        if self.way != Way::ProxyProtocol || !self.trust(remote.ip()) {
            return Ok(remote);
        }
        let header = header(stream).await?;
        source(&header).map(|source| source.unwrap_or(remote))
    }
}

/// How long a header of version 1 may be, and what is the least of either version.
const LONGEST_V1: usize = 107;
const SHORTEST: usize = 15;
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// How long one of version 2 may be: addresses of 216 bytes at most, and what load balancers append.
const LONGEST_V2: usize = 4096;

/// Reads exactly one header. Its end shows only while it is read, so what is there is looked at before it is taken.
async fn header(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut header = vec![0; SHORTEST];
    stream.read_exact(&mut header).await?;
    if header.starts_with(SIGNATURE_V2) {
        let low = stream.read_u8().await?;
        header.push(low);
        let rest = usize::from(u16::from_be_bytes([header[14], low]));
        if 16 + rest > LONGEST_V2 {
            return Err(invalid());
        }
        header.resize(16 + rest, 0);
        stream.read_exact(&mut header[16..]).await?;
        return Ok(header);
    }
    if !header.starts_with(b"PROXY ") {
        return Err(invalid());
    }
    while !header.ends_with(b"\r\n") {
        let mut ahead = [0; LONGEST_V1];
        let room = LONGEST_V1 - header.len();
        let seen = stream.peek(&mut ahead[..room]).await?;
        // No room left, or the connection's end.
        if seen == 0 {
            return Err(invalid());
        }
        let end = ahead[..seen].iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(seen, |end| end + 1);
        let start = header.len();
        header.resize(start + taken, 0);
        stream.read_exact(&mut header[start..]).await?;
    }
    Ok(header)
}

/// The address that a header names; `None` where the proxy speaks for itself (a health check) or does not know.
pub(crate) fn source(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    use ppp::{HeaderResult, v1, v2};
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(from) => Some((from.source_address, from.source_port).into()),
            v1::Addresses::Tcp6(from) => Some((from.source_address, from.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            _ if header.command == v2::Command::Local => None,
            v2::Addresses::IPv4(from) => Some((from.source_address, from.source_port).into()),
            v2::Addresses::IPv6(from) => Some((from.source_address, from.source_port).into()),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(invalid()),
    }
}

fn invalid() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "this is no header of the PROXY protocol",
    )
}

/// An address that a header names, with its port where that is known.
#[cfg(any(feature = "ws", feature = "http"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    address: IpAddr,
    port: u16,
}

#[cfg(any(feature = "ws", feature = "http"))]
impl From<Hop> for SocketAddr {
    fn from(hop: Hop) -> Self {
        (hop.address, hop.port).into()
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
#[cfg(any(feature = "ws", feature = "http"))]
fn hop(text: &str) -> Option<Hop> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        let (address, port) = (address.ip(), address.port());
        return Some(Hop { address, port });
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse().ok()?;
    Some(Hop { address, port: 0 })
}

/// The `for` of an element of `Forwarded` (RFC 7239, section 4).
#[cfg(any(feature = "ws", feature = "http"))]
fn forwarded_for(element: &str) -> Option<Hop> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        let value = value.trim_matches('"');
        name.eq_ignore_ascii_case("for").then(|| hop(value))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_networks_or_addresses() {
        let proxies = TrustedProxies::proxy_protocol(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])
            .expect("networks");
        let trust = |address: &str| proxies.trust(address.parse().expect("an address"));
        assert!(trust("10.255.0.1") && trust("192.0.2.7") && trust("fd00::1"));
        assert!(
            trust("::ffff:10.0.0.1"),
            "an IPv4 address on an IPv6 socket"
        );
        assert!(!trust("192.0.2.8") && !trust("11.0.0.1") && !trust("::1"));
        let wrong =
            TrustedProxies::forwarded(["10.0.0.0/8", "10.0.0.0/99"]).expect_err("no network");
        assert!(
            wrong
                .to_string()
                .starts_with("\"10.0.0.0/99\" is no network")
        );
    }

    #[cfg(any(feature = "ws", feature = "http"))]
    fn client(
        proxies: &TrustedProxies,
        remote: &str,
        name: &'static str,
        lines: &[&str],
    ) -> String {
        let mut headers = hyper::HeaderMap::new();
        for line in lines {
            headers.append(name, line.parse().expect("a value"));
        }
        let remote = remote.parse().expect("an address");
        proxies.client(remote, &headers).to_string()
    }

    #[cfg(any(feature = "ws", feature = "http"))]
    #[test]
    fn of_x_forwarded_for_the_last_address_that_is_no_proxys_counts() {
        let proxies = TrustedProxies::x_forwarded_for(["10.0.0.0/8"]).expect("a network");
        let client = |remote, lines: &[&str]| client(&proxies, remote, "x-forwarded-for", lines);
        assert_eq!(client("10.0.0.1:5", &["203.0.113.9"]), "203.0.113.9:0");
        assert_eq!(
            client("10.0.0.1:5", &["1.1.1.1, 203.0.113.9, 10.0.0.2"]),
            "203.0.113.9:0"
        );
        assert_eq!(
            client("10.0.0.1:5", &["1.1.1.1", "203.0.113.9:77", "10.0.0.2"]),
            "203.0.113.9:77"
        );
        assert_eq!(client("10.0.0.1:5", &["[2001:db8::1]"]), "[2001:db8::1]:0");
        assert_eq!(client("10.0.0.1:5", &["2001:db8::1"]), "[2001:db8::1]:0");
        assert_eq!(client("10.0.0.1:5", &["1.1.1.1, nonsense"]), "10.0.0.1:5");
        assert_eq!(client("10.0.0.1:5", &[]), "10.0.0.1:5");
        assert_eq!(
            client("192.0.2.1:5", &["203.0.113.9"]),
            "192.0.2.1:5",
            "not from a proxy"
        );
    }

    #[cfg(any(feature = "ws", feature = "http"))]
    #[test]
    fn forwarded_is_read_as_the_rfc_has_it() {
        let proxies = TrustedProxies::forwarded(["10.0.0.0/8"]).expect("a network");
        let client = |lines: &[&str]| client(&proxies, "10.0.0.1:5", "forwarded", lines);
        assert_eq!(
            client(&["For=\"[2001:db8:cafe::17]:4711\""]),
            "[2001:db8:cafe::17]:4711"
        );
        assert_eq!(
            client(&["for=192.0.2.60;proto=http;by=203.0.113.43"]),
            "192.0.2.60:0"
        );
        assert_eq!(
            client(&["for=192.0.2.43, for=198.51.100.17"]),
            "198.51.100.17:0"
        );
        assert_eq!(client(&["for=192.0.2.43, for=_hidden"]), "10.0.0.1:5");
        assert_eq!(client(&["proto=http"]), "10.0.0.1:5");
    }

    #[test]
    fn headers_of_both_versions_name_their_source() {
        let named = |header: &[u8]| {
            source(header)
                .expect("a header")
                .map(|from| from.to_string())
        };
        assert_eq!(
            named(b"PROXY TCP4 203.0.113.9 192.0.2.1 77 80\r\n").as_deref(),
            Some("203.0.113.9:77")
        );
        assert_eq!(
            named(b"PROXY TCP6 2001:db8::1 ::1 77 80\r\n").as_deref(),
            Some("[2001:db8::1]:77")
        );
        assert_eq!(named(b"PROXY UNKNOWN\r\n"), None);
        let v2 = |command: u8, family: u8, rest: &[u8]| {
            let length = (rest.len() as u16).to_be_bytes();
            [SIGNATURE_V2, &[0x20 | command, family], &length, rest].concat()
        };
        let addresses = [203, 0, 113, 9, 192, 0, 2, 1, 0, 77, 0, 80];
        assert_eq!(
            named(&v2(1, 0x11, &addresses)).as_deref(),
            Some("203.0.113.9:77")
        );
        assert_eq!(named(&v2(0, 0x11, &addresses)), None, "LOCAL");
        assert_eq!(named(&v2(0, 0, &[])), None);
        assert!(source(b"PROXY TCP4 1 2 3 4\r\n").is_err());
        assert!(source(&v2(1, 0x11, &addresses[1..])).is_err());
    }
}
