//! Proxies to the API server, which the operator does not support.
//!
//! kube-rs sets the proxy of a [`Config`] that it reads from a kubeconfig: the `proxy-url` of the kubeconfig, or
//! `HTTPS_PROXY`, or `https_proxy`. It ignores `NO_PROXY`, which is therefore applied here, by the rules of Go's
//! `golang.org/x/net/http/httpproxy`, as kubectl does. Within a pod kube-rs reads no kubeconfig and sets no proxy.

use std::net::IpAddr;

use http::Uri;
use kube::Config;
use kube::config::Kubeconfig;

/// Checks that the API server is reached without a proxy.
///
/// # Errors
/// Fails if a proxy is configured for the API server. The message names the place where it is configured.
pub(crate) fn reject_proxy(config: &Config) -> Result<(), String> {
    let variable = |name: &str| std::env::var(name).ok();
    match &config.proxy_url {
        Some(proxy) => check(
            &config.cluster_url,
            proxy,
            kubeconfig_sets_proxy(),
            variable,
        ),
        None => Ok(()),
    }
}

/// Checks whether a proxy applies to a server. `variable` returns the value of an environment variable.
fn check(
    server: &Uri,
    proxy: &Uri,
    in_kubeconfig: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    let proxy = address(proxy);
    if in_kubeconfig {
        return Err(format!(
            "proxies to the API server are not supported, but the kubeconfig sets proxy-url {proxy} for {server}"
        ));
    }
    let is_set = |name: &&str| variable(name).is_some_and(|value| !value.is_empty());
    let no_proxy = ["NO_PROXY", "no_proxy"].into_iter().find(is_set);
    if !is_proxied(server, &no_proxy.and_then(&variable).unwrap_or_default()) {
        return Ok(());
    }
    let name = ["HTTPS_PROXY", "https_proxy"].into_iter().find(is_set);
    let name = name.unwrap_or("HTTPS_PROXY");
    Err(format!(
        "proxies to the API server are not supported, but the variable {name} sets the proxy {proxy} for {server}: \
         unset {name}, or add {} to {}",
        server.host().unwrap_or_default(),
        no_proxy.unwrap_or("NO_PROXY")
    ))
}

/// Whether the current context of the kubeconfig has a `proxy-url`, which takes precedence over variables.
fn kubeconfig_sets_proxy() -> bool {
    let cluster = || {
        let kubeconfig = Kubeconfig::read().ok()?;
        let name = kubeconfig.current_context?;
        let context = kubeconfig.contexts.into_iter().find(|c| c.name == name)?;
        let name = context.context?.cluster;
        let cluster = kubeconfig.clusters.into_iter().find(|c| c.name == name)?;
        cluster.cluster?.proxy_url
    };
    cluster().is_some_and(|url| !url.is_empty())
}

/// The host and port of a proxy, without its credentials.
fn address(proxy: &Uri) -> String {
    let host = proxy.host().unwrap_or_default();
    proxy
        .port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether the proxy of `HTTPS_PROXY` applies to a server, with this value of `NO_PROXY`.
fn is_proxied(server: &Uri, no_proxy: &str) -> bool {
    if server.scheme_str() == Some("http") {
        return false;
    }
    let host = server.host().unwrap_or_default().to_ascii_lowercase();
    let ip = ip_address(host.trim_matches(['[', ']']));
    if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return false;
    }
    let port = server.port_u16().unwrap_or(443).to_string();
    !no_proxy
        .split(',')
        .map(|entry| entry.trim().to_ascii_lowercase())
        .any(|entry| excludes(&entry, &host, ip, &port))
}

/// Whether an entry of `NO_PROXY` excludes a server from the proxy.
fn excludes(entry: &str, host: &str, ip: Option<IpAddr>, port: &str) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some(network) = network(entry) {
        return ip.is_some_and(|ip| contains(network, ip));
    }
    let (name, entry_port) = split_port(entry);
    if name.is_empty() || entry_port.is_some_and(|p| p != port) {
        return false;
    }
    if let Some(address) = ip_address(name) {
        return ip == Some(address);
    }
    if ip.is_some() {
        return false;
    }
    // `.example.com` and `*.example.com` match subdomains only.
    let name = name
        .strip_prefix('*')
        .filter(|n| n.starts_with('.'))
        .unwrap_or(name);
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(name),
        None => {
            host == name
                || host
                    .strip_suffix(name)
                    .is_some_and(|subdomain| subdomain.ends_with('.'))
        }
    }
}

/// Splits `host:port` and `[IPv6]:port`. Anything else has no port.
fn split_port(entry: &str) -> (&str, Option<&str>) {
    let parts = match entry.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => entry
            .split_once(':')
            .filter(|(_, port)| !port.contains(':')),
    };
    match parts {
        Some((host, port)) => (host, Some(port).filter(|p| !p.is_empty())),
        None => (entry, None),
    }
}

/// Parses an IP address. An IPv4 address that is written as IPv6 is an IPv4 address.
fn ip_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// Parses a network, such as `10.0.0.0/8`.
fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = text.split_once('/')?;
    let (address, length) = (address.parse().ok()?, length.parse().ok()?);
    let max_length = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    (length <= max_length).then_some((address, length))
}

fn contains((network, length): (IpAddr, u32), ip: IpAddr) -> bool {
    // A shift by all bits, for the length 0, leaves no bit that could differ.
    match (network, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let differing = a.to_bits() ^ b.to_bits();
            differing.checked_shr(32 - length).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let differing = a.to_bits() ^ b.to_bits();
            differing.checked_shr(128 - length).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_excludes_hosts_domains_addresses_networks_and_ports() {
        let name = "https://api.shop.example.com:6443";
        let v4 = "https://10.96.0.1:6443";
        let v6 = "https://[2001:db8::1]:6443";
        let cases = [
            // Nothing is excluded.
            (name, "", true),
            (name, " , ,", true),
            (v4, "", true),
            (v6, "", true),
            // Everything is excluded.
            (name, "other.example,*", false),
            (v4, " * ", false),
            // A domain name matches itself and its subdomains.
            (name, "api.shop.example.com", false),
            (name, "API.Shop.Example.COM", false),
            (
                "https://API.Shop.example.com:6443",
                "api.shop.example.com",
                false,
            ),
            (name, "shop.example.com", false),
            (name, "a.example, example.com ,b.example", false),
            (name, "hop.example.com", true),
            (name, "api.shop.example.com.", true),
            (name, "shop", true),
            // With a leading dot or `*.` it matches subdomains only.
            (name, ".shop.example.com", false),
            (name, "*.example.com", false),
            (name, ".api.shop.example.com", true),
            (name, "*.api.shop.example.com", true),
            (name, "*example.com", true),
            // A port must be that of the server.
            (name, "example.com:6443", false),
            (name, ".example.com:6443", false),
            (name, "example.com:443", true),
            (name, "example.com:", false),
            (name, ":6443", true),
            ("https://api.example.com", "api.example.com:443", false),
            ("https://api.example.com", "api.example.com:6443", true),
            // IP addresses.
            (v4, "10.96.0.1", false),
            (v4, "10.96.0.1:6443", false),
            (v4, "10.96.0.1:443", true),
            (v4, "10.96.0.2", true),
            (v4, "10.96.0", true),
            (v4, "::ffff:10.96.0.1", false),
            (v6, "2001:db8::1", false),
            (v6, "2001:0db8:0::1", false),
            (v6, "[2001:db8::1]:6443", false),
            (v6, "[2001:db8::1]:443", true),
            (v6, "[2001:db8::1]", true),
            (v6, "2001:db8::2", true),
            // Networks.
            (v4, "10.96.0.0/12", false),
            (v4, "10.96.0.1/32", false),
            (v4, "10.96.0.0/32", true),
            (v4, "10.97.0.0/16", true),
            (v4, "0.0.0.0/0", false),
            (v4, "::/0", true),
            (v4, "10.96.0.0/33", true),
            (v6, "2001:db8::/32", false),
            (v6, "2001:db9::/32", true),
            (v6, "::/0", false),
            (v6, "2001:db8::1/128", false),
            (name, "0.0.0.0/0", true),
        ];
        for (server, no_proxy, proxied) in cases {
            let server: Uri = server.parse().unwrap();
            assert_eq!(
                is_proxied(&server, no_proxy),
                proxied,
                "{server}: {no_proxy}"
            );
        }
    }

    #[test]
    fn loopback_addresses_and_http_servers_are_not_proxied() {
        for server in [
            "https://localhost:6443",
            "https://127.0.0.1:6443",
            "https://127.8.0.1",
            "https://[::1]:6443",
            "http://api.example.com:8001",
        ] {
            assert!(!is_proxied(&server.parse().unwrap(), ""), "{server}");
        }
        assert!(is_proxied(
            &"https://localhost.example.com".parse().unwrap(),
            ""
        ));
    }

    #[test]
    fn the_message_names_the_source_of_the_proxy_without_its_credentials() {
        let check = |in_kubeconfig: bool, set: &[(&str, &str)]| {
            let server = "https://api.example.com:6443".parse().unwrap();
            let proxy = "http://user:secret@proxy.example:3128".parse().unwrap();
            super::check(&server, &proxy, in_kubeconfig, |name| {
                let found = set.iter().find(|(n, _)| *n == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let proxy = "http://user:secret@proxy.example:3128";
        let message = |text: &str| {
            Err(format!(
                "proxies to the API server are not supported, but {text}"
            ))
        };
        assert_eq!(
            check(true, &[("HTTPS_PROXY", proxy), ("NO_PROXY", "*")]),
            message(
                "the kubeconfig sets proxy-url proxy.example:3128 for https://api.example.com:6443/"
            )
        );
        assert_eq!(
            check(false, &[("HTTPS_PROXY", proxy), ("https_proxy", proxy)]),
            message(
                "the variable HTTPS_PROXY sets the proxy proxy.example:3128 for https://api.example.com:6443/: \
                 unset HTTPS_PROXY, or add api.example.com to NO_PROXY"
            )
        );
        assert_eq!(
            check(
                false,
                &[
                    ("HTTPS_PROXY", ""),
                    ("https_proxy", proxy),
                    ("no_proxy", "b.example")
                ]
            ),
            message(
                "the variable https_proxy sets the proxy proxy.example:3128 for https://api.example.com:6443/: \
                 unset https_proxy, or add api.example.com to no_proxy"
            )
        );
        for excluded in [
            ("NO_PROXY", "example.com"),
            ("no_proxy", ".example.com:6443"),
        ] {
            assert_eq!(check(false, &[("HTTPS_PROXY", proxy), excluded]), Ok(()));
        }
        let upper_case_first = [("NO_PROXY", "b.example"), ("no_proxy", "*")];
        assert!(check(false, &upper_case_first).is_err());
    }

    #[test]
    fn credentials_of_a_proxy_are_not_shown() {
        for (proxy, shown) in [
            (
                "http://user:secret@proxy.example:3128",
                "proxy.example:3128",
            ),
            ("http://user:secret@proxy.example/", "proxy.example"),
            ("proxy.example:3128", "proxy.example:3128"),
            ("http://[::1]:3128", "[::1]:3128"),
        ] {
            assert_eq!(address(&proxy.parse().unwrap()), shown);
        }
    }
}
