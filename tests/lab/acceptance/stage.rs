//! What the configurations find on every host: files, networks, a pool, a secret, servers; and a disk for all at the operator's.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use crate::harness::{in_operators_network, lab, on_host, setting};

/// The stage, cleared when it is dropped.
pub(super) struct Stage {
    servers: Vec<Child>,
    huge_pages: String,
}

const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

/// File vmgate.yaml with which vmgate is called: its on-host program runs without ssh, of which each look would need a login.
pub(super) fn config() -> String {
    // Not in the hosts' folder, which QEMU's user writes to: vmgate believes no such file.
    concat!(env!("CARGO_TARGET_TMPDIR"), "/acceptance.yaml").to_owned()
}

fn write_config() {
    let mut text = "schema: vmgate/config/v1\nhosts:\n".to_owned();
    for host in ["a", "b", "d"] {
        let pid =
            fs::read_to_string(format!("{}/hosts/{host}/init.pid", setting("VMGATE_LAB_STATE"))).unwrap();
        let pid = pid.split(' ').next().unwrap();
        let _ = writeln!(
            text,
            "  lab-{host}: {{exec: [nsenter, --target, '{pid}', --mount, --uts, --net, --pid, --root, --wd, --, \
             /usr/bin/env, -i, 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', /lab/guests/acceptance/vmgate-probe]}}"
        );
    }
    fs::write(config(), text).unwrap();
}

/// Folder that all hosts have as /lab/guests/acceptance.
pub(super) fn folder() -> PathBuf {
    PathBuf::from(setting("VMGATE_LAB_STATE")).join("guests/acceptance")
}

impl Stage {
    pub(super) fn set() -> Self {
        let folder = folder();
        fs::create_dir_all(&folder).unwrap();
        let said = Command::new("sh").args(["-ec", IMAGES]).current_dir(&folder).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        fs::write(folder.join("serve"), SERVE).unwrap();
        let probe = Path::new(env!("CARGO_BIN_EXE_vmgate")).with_file_name("vmgate-probe");
        fs::copy(probe, folder.join("vmgate-probe")).unwrap();
        write_config();
        let huge_pages = fs::read_to_string(HUGE_PAGES).unwrap();
        fs::write(HUGE_PAGES, "128").unwrap();
        for host in ["a", "b", "d"] {
            on_host(host, "exec sh -s", ON_HOST.as_bytes()).exits(0);
        }
        // libvirt looks for mounted huge pages when it starts.
        lab(&["up", "a", "b", "d"]).exits(0);
        let servers =
            [("disk.raw", "export", "10809"), ("disk.qcow2", "", "10810")].map(|(file, name, port)| {
                let mut server = Command::new("ip");
                server.args([
                    "netns",
                    "exec",
                    &setting("VMGATE_LAB_NETNS"),
                    "qemu-nbd",
                    "--persistent",
                    "--shared=0",
                ]);
                server
                    .args(["-f", "raw", "-x", name, "-b", "10.77.3.100", "-p", port])
                    .arg(folder.join(file));
                server.stdin(Stdio::null()).spawn().unwrap()
            });
        let listener = in_operators_network(|| TcpListener::bind("10.77.3.100:10811").unwrap());
        // It keeps what it accepts; the thread ends with the program.
        thread::spawn(move || listener.incoming().flatten().collect::<Vec<_>>());
        Self { servers: servers.into(), huge_pages }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        if let Ok(mut file) = fs::File::create(HUGE_PAGES) {
            let _ = file.write_all(self.huge_pages.as_bytes());
        }
    }
}

const IMAGES: &str = "
chmod 777 .
for format in raw qcow2 qed vmdk vdi vpc vhdx qcow parallels; do
  [ -e image.$format ] || qemu-img create -q -f $format image.$format 16M
done
[ -e disk.raw ] || truncate -s 16M disk.raw image.bochs image.dmg
[ -e disk.qcow2 ] || qemu-img create -q -f qcow2 disk.qcow2 16M
for file in image.luks image.encrypted; do
  [ -e $file ] || qemu-img create -q --object secret,id=s,data=vmgate -f luks -o key-secret=s,iter-time=10 $file 16M
done
qemu-img create -q -f qcow2 -b image.qcow2 -F qcow2 overlay.qcow2
qemu-img create -q -f qcow2 -b image.vmdk -F vmdk overlay-vmdk.qcow2
chmod 666 *
";

const ON_HOST: &str = r#"
for vm in $(virsh -q list --all --name | grep '^acc-'); do virsh -q destroy $vm; virsh -q undefine $vm; done >/dev/null 2>&1
mkdir -p /srv/acceptance/folder
cd /srv/acceptance
cp /lab/guests/acceptance/serve . && chmod 755 serve
for image in /lab/cache/guest-*/vmlinuz; do cp "$image" kernel; done
truncate -s 64K iso rom initrd pstore
truncate -s 1440K raw
printf 'SLIC\44\0\0\0\1\0VMGATEVMGATE  \1\0\0\0VMG \1\0\0\0' >slic
mkfifo pipe
[ -S server.sock ] || setsid ./serve server.sock 127.0.0.1:19999 >/dev/null 2>&1 </dev/null &
chmod 777 . folder; chmod 666 iso rom initrd pstore raw slic kernel pipe
define() { cat >/tmp/stage.xml; }
define <<'XML'
<network><name>acceptance-bridge</name><forward mode='bridge'/><bridge name='br0'/><portgroup name='red'/></network>
XML
virsh -q net-create /tmp/stage.xml
define <<'XML'
<network><name>acceptance-isolated</name><bridge name='acciso'/><dns enable='no'/><ip address='10.77.11.1' prefix='24'/></network>
XML
virsh -q net-create /tmp/stage.xml
define <<'XML'
<network><name>acceptance-open</name><forward mode='open'/><bridge name='accopen'/><dns enable='no'/><ip address='10.77.12.1' prefix='24'/></network>
XML
virsh -q net-create /tmp/stage.xml
define <<'XML'
<filter name='acceptance' chain='root'/>
XML
virsh -q nwfilter-define /tmp/stage.xml
define <<'XML'
<secret ephemeral='no' private='no'><uuid>6a1f3d0e-1111-4222-8333-00000000000a</uuid></secret>
XML
virsh -q secret-define /tmp/stage.xml
virsh -q secret-set-value 6a1f3d0e-1111-4222-8333-00000000000a $(printf vmgate | base64)
virsh -q pool-create-as acceptance dir --target /lab/guests/acceptance
if [ ! -e /dev/hugepages ]; then
  mkdir /dev/hugepages && mount -t hugetlbfs hugetlbfs /dev/hugepages
  p=$(cat /run/libvirtd.pid); kill $p; while [ -e /proc/$p ]; do sleep 0.1; done
fi
exit 0
"#;

/// Listens at a socket and at a port, and keeps what it accepts.
const SERVE: &str = r#"#!/usr/bin/perl
use IO::Socket::INET; use IO::Socket::UNIX; use IO::Select;
my ($path, $at, $udp) = @ARGV;
open(my $file, '>', "$path.pid"); print $file $$; close $file;
unlink $path;
my $unix = IO::Socket::UNIX->new(Local => $path, Listen => 9); chmod 0666, $path;
my $net = IO::Socket::INET->new(LocalAddr => $at, ReuseAddr => 1, $udp ? (Proto => 'udp') : (Listen => 9));
my @kept;
while (my @ready = IO::Select->new(grep { $_ } $unix, $udp ? () : $net)->can_read) {
  push @kept, map { $_->accept } @ready;
}
"#;
