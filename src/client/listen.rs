//! The sockets that clients connect to.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::language::either;
use crate::settings::Listen;

/// Connections that may wait to be accepted; std's 128 makes some of a burst of 500 wait for a second.
const BACKLOG: i32 = 4096;
/// Ollama's port, where tools look for it.
const OLLAMAS_PORT: u16 = 11434;

/// Ports below this one are reserved for the administrator.
const FIRST_FREE_PORT: u16 = 1024;

/// Why listening failed.
#[derive(Debug)]
pub enum ListenError {
    /// Something listens there already.
    Taken(SocketAddr),
    /// Any other error.
    Other(SocketAddr, io::Error),
    /// `HOST` is a name that can't be resolved.
    UnknownHost(String),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(address) => {
                let port = address.port();
                if port == OLLAMAS_PORT {
                    return f.write_str(either(
                        "port 11434 is taken, probably by Ollama itself. Stop Ollama (also in the tray), or choose another port with PORT in .env or --port and enter it in your tool.",
                        "端口 11434 已被占用，很可能是 Ollama 自己在运行。请停止 Ollama（包括托盘里的），或在 .env 中用 PORT 或用 --port 选择另一个端口，并填入你的工具。",
                    ));
                }
                f.write_str(&either(
                    format!(
                        "port {port} is taken by another program. Choose another with PORT in .env or --port"
                    ),
                    format!("端口 {port} 已被其他程序占用。请在 .env 中用 PORT 或用 --port 选择另一个"),
                ))?;
                if cfg!(target_os = "macos") && address.port() == 5000 {
                    f.write_str(either(
                        " (on macOS it is AirPlay Receiver's: System Settings, General, AirDrop & Handoff)",
                        "（macOS 上它属于“隔空播放接收器”：系统设置 - 通用 - 隔空投送与接力）",
                    ))?;
                }
                f.write_str(either(".", "。"))
            }
            Self::Other(address, e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let port = address.port();
                f.write_str(&if (1..FIRST_FREE_PORT).contains(&port) {
                    either(
                        format!(
                            "listening on {address} is not allowed. Choose a port above 1023 with PORT in .env or --port."
                        ),
                        format!("不允许监听 {address}。请在 .env 中用 PORT 或用 --port 选择大于 1023 的端口。"),
                    )
                } else {
                    // On Windows, Hyper-V and WSL reserve ranges of ports; on other systems a policy may forbid them.
                    either(
                        format!(
                            "the system doesn't let programs listen on port {port}: it is reserved, or a security policy forbids it. Choose another one with PORT in .env or --port, such as 5050."
                        ),
                        format!(
                            "系统不允许程序监听端口 {port}：它已被系统保留，或被安全策略禁止。请在 .env 中用 PORT 或用 --port 选择另一个，例如 5050。"
                        ),
                    )
                })
            }
            Self::Other(address, e) if e.kind() == io::ErrorKind::AddrNotAvailable => {
                let ip = address.ip();
                f.write_str(&either(
                    format!("{ip} is not an address of this machine. Check HOST in .env or --host."),
                    format!("{ip} 不是本机的地址。请检查 .env 中的 HOST 或 --host。"),
                ))
            }
            Self::Other(address, e) => f.write_str(&either(
                format!("can't listen on {address}: {e}. Check HOST and PORT in .env."),
                format!("无法监听 {address}：{e}。请检查 .env 中的 HOST 和 PORT。"),
            )),
            Self::UnknownHost(host) => f.write_str(&either(
                format!("{host} is not a name that this machine knows. Check HOST in .env or --host."),
                format!("本机不认识主机名 {host}。请检查 .env 中的 HOST 或 --host。"),
            )),
        }
    }
}

/// Opens the sockets for `HOST` and `PORT`; `localhost` has one for IPv4 and one for IPv6.
pub fn bind(listen: &Listen) -> Result<Vec<TcpListener>, ListenError> {
    if !listen.host.eq_ignore_ascii_case("localhost") {
        let unknown = || ListenError::UnknownHost(listen.host.clone());
        let addresses = (listen.host.as_str(), listen.port).to_socket_addrs().map_err(|_| unknown())?;
        let listeners = addresses.map(bind_to).collect::<Result<Vec<_>, _>>()?;
        return if listeners.is_empty() { Err(unknown()) } else { Ok(listeners) };
    }
    let v4 = bind_to((Ipv4Addr::LOCALHOST, listen.port).into());
    // Both have the same port, also where the system chose it.
    let port = match &v4 {
        Ok(listener) => listener.local_addr().map_or(listen.port, |address| address.port()),
        Err(_) => listen.port,
    };
    let v6 = bind_to((Ipv6Addr::LOCALHOST, port).into());
    match (v4, v6) {
        (Err(taken @ ListenError::Taken(_)), _) | (_, Err(taken @ ListenError::Taken(_))) => Err(taken),
        // A machine may have only one of the two families.
        (Ok(v4), v6) => Ok(std::iter::once(v4).chain(v6).collect()),
        (Err(_), Ok(v6)) => Ok(vec![v6]),
        (Err(error), Err(_)) => Err(error),
    }
}

fn bind_to(address: SocketAddr) -> Result<TcpListener, ListenError> {
    open(address).map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken(address),
        _ => ListenError::Other(address, e),
    })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Only `::` takes IPv4 clients too; `::1` must not collide with 127.0.0.1.
        socket.set_only_v6(address.ip() != IpAddr::from(Ipv6Addr::UNSPECIFIED))?;
    }
    // On systems other than Windows, this only makes bind ignore closed connections of the last run.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    let _ = super::socket::prepare(&SockRef::from(&socket));
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Returns the port of these listeners, which the system chose if the settings say 0; 0 if there are no listeners.
pub fn port(listeners: &[TcpListener]) -> u16 {
    let address = listeners.first().and_then(|listener| listener.local_addr().ok());
    address.map_or(0, |address| address.port())
}

/// The address for people and tools, without a slash at its end.
pub fn url(host: &str, port: u16) -> String {
    match host {
        "0.0.0.0" | "::" => format!("http://localhost:{port}"),
        host if host.contains(':') => format!("http://[{host}]:{port}"),
        host => format!("http://{host}:{port}"),
    }
}
