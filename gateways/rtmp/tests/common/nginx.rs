//! nginx with its RTMP module, which lets everybody publish to `live`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::media::{self, Running};
use super::wait_for;

pub struct Nginx {
    process: Running,
    pub address: SocketAddr,
}

impl Nginx {
    /// One process on a free port; `name` is its folder.
    pub async fn start(name: &str) -> Self {
        Self::start_at(name, TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()).await
    }

    /// The same on a port that another one had.
    pub async fn start_at(name: &str, address: SocketAddr) -> Self {
        let folder = media::folder().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let dir = folder.to_str().unwrap();
        let config = format!(
            "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;\n\
             daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\n\
             events {{ worker_connections 2048; }}\n\
             rtmp {{ server {{ listen {address}; chunk_size 60000; application live {{ live on; }} }} }}\n"
        );
        std::fs::write(folder.join("nginx.conf"), config).unwrap();
        let process = Running::start("nginx", &["-p", dir, "-c", &format!("{dir}/nginx.conf")]);
        wait_for("nginx", Duration::from_secs(5), || TcpStream::connect(address).is_ok()).await;
        Self { process, address }
    }

    pub fn url(&self, path: &str) -> String {
        format!("rtmp://{}/{path}", self.address)
    }

    /// Its CPU time so far, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.pid())).unwrap();
        // After the name in parentheses: utime and stime are the 12th and 13th field, in hundredths of a second.
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|f| f.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }
}
