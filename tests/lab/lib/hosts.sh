# shellcheck shell=bash
# A host is a process: `tini`, the first of its PID, mount and UTS namespaces, in the host's network namespace, on an
# overlay over the cached root file system. Kill it and everything of the host is gone: libvirtd, guests, mounts.
#
# tini is there to reap: were libvirtd itself the first process, each ended QEMU would stay a zombie that libvirt
# waits for, and a migration would take 40 s instead of 2.

hosts_up() {
  local host started=()
  for host in "${HOSTS[@]}"; do
    host_process "$host" >/dev/null && continue
    host_start "$host"
    started+=("$host")
  done
  for host in "${HOSTS[@]}"; do
    host_note_old_root "$host"
    host_start_daemons "$host"
  done
  for host in "${HOSTS[@]}"; do
    wait_until 60 host_answers "$host" ||
      die "libvirtd or sshd of host $host does not answer; its log: $(host_dir "$host")/run/libvirtd.log"
  done
}

hosts_down() {
  local host
  for host in "${HOSTS[@]}"; do
    stop_recorded "$(host_dir "$host")/init.pid"
  done
}

hosts_summary() {
  local host
  for host in "${HOSTS[@]}"; do
    printf '%s (%s) ' "$(hostname_of "$host")" "${HOST_SUITE[$host]}"
  done
}

host_process() { recorded_process "$(host_dir "$1")/init.pid"; }

host_note_old_root() {
  local now made
  now=$(basename "$(root_path "${HOST_SUITE[$1]}")")
  made=$(basename "$(cat "$(host_dir "$1")/root.path")")
  [[ $now == "$made" ]] || say "host $1 runs an older recipe ($made); lab down, then lab up, takes the new one"
}

host_start() {
  local host=$1 dir
  dir=$(host_dir "$host")
  mkdir -p "$dir"
  # A killed `up` may have started the host without recording it.
  netns_stop_processes "$(netns_of "$host")"
  rm -rf "$dir/upper" "$dir/work" "$dir/run" "$dir/root" "$dir/init.pid"
  mkdir -p "$dir"/{upper,work,run,root}
  root_path "${HOST_SUITE[$host]}" >"$dir/root.path"
  nsenter --net="/run/netns/$(netns_of "$host")" \
    setsid unshare --mount --uts --pid --fork "$LAB_PROGRAM" internal host_boot "$host" \
    </dev/null >"$dir/boot.log" 2>&1 9>&- &
  disown
  wait_until 20 host_process "$host" || {
    cat "$dir/boot.log" >&2
    die "host $host did not start; see $dir/boot.log"
  }
}

# Runs as the first process of the host's namespaces.
internal_host_boot() {
  local host=$1 dir root pid
  dir=$(host_dir "$host")
  root=$dir/root
  # This /proc is still the machine's, so this is the pid by which the machine knows us.
  read -r pid _ </proc/self/stat
  record_process "$dir/init.pid" "$pid"
  mount --make-rprivate /
  mount -t overlay overlay -o "lowerdir=$(cat "$dir/root.path"),upperdir=$dir/upper,workdir=$dir/work" "$root"
  host_mount_kernel_files "$root"
  mount --bind "$dir/run" "$root/run"
  mkdir -p "$root/lab/cache" "$root/lab/guests"
  mount --bind "$LAB_CACHE" "$root/lab/cache"
  mount -o remount,bind,ro "$root/lab/cache"
  mount --bind "$LAB_STATE/guests" "$root/lab/guests"
  hostname "$(hostname_of "$host")"
  host_configure "$host" "$root"
  cd "$root" || exit
  pivot_root . .
  umount -l .
  exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /bin/sh -c ': >/run/booted; exec /usr/bin/tini -s -- /bin/sleep infinity'
}

# Gives the hosts /dev/kvm, which libvirtd looks for when it starts.
hosts_offer_kvm() {
  local host
  kvm_works || die "this machine has no /dev/kvm that opens: guests of kind kvm cannot run here"
  kvm_mute_operator
  for host in "${HOSTS[@]}"; do
    host_exec "$host" test -e /dev/kvm && continue
    host_exec "$host" mknod -m 666 /dev/kvm c 10 232
    # shellcheck disable=SC2016 # for the host's shell
    host_exec "$host" sh -c 'pid=$(cat /run/libvirtd.pid); kill "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done; rm -rf /var/cache/libvirt/qemu /run/libvirtd.pid'
    host_start_daemons "$host"
    wait_until 60 host_answers "$host" || die "libvirtd of host $host does not answer with /dev/kvm"
  done
}

kvm_works() { [[ -c /dev/kvm ]] && (exec 7<>/dev/kvm) 2>/dev/null; }

# /dev is the host's own and has no kvm: where the machine has one, the lab behaves as where it has none.
host_mount_kernel_files() {
  local root=$1 node
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  mkdir "$root"/dev/{pts,shm,net}
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  while read -r node; do
    # shellcheck disable=SC2086 # name, type, major, minor
    set -- $node
    mknod -m 666 "$root/dev/$1" c "$2" "$3"
  done <<<$'null 1 3\nzero 1 5\nfull 1 7\nrandom 1 8\nurandom 1 9\ntty 5 0\nnet/tun 10 200'
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  ln -s /proc/self/fd/0 "$root/dev/stdin"
  ln -s /proc/self/fd/1 "$root/dev/stdout"
  ln -s /proc/self/fd/2 "$root/dev/stderr"
}

host_configure() {
  local host=$1 root=$2
  hostname_of "$host" >"$root/etc/hostname"
  uuid_of "$host" | tr -d - >"$root/etc/machine-id"
  echo 'hosts: files' >"$root/etc/nsswitch.conf"
  printf 'passwd: files\ngroup: files\nshadow: files\n' >>"$root/etc/nsswitch.conf"
  names_file migration_address >"$root/etc/hosts"
  sed "s/@UUID@/$(uuid_of "$host")/" "$LAB_DIR/host/libvirtd.conf" >"$root/etc/libvirt/libvirtd.conf"
  cp "$LAB_DIR/host/qemu.conf" "$root/etc/libvirt/qemu.conf"
  sed "s/@ADDRESS@/$(management_address "$host")/" "$LAB_DIR/host/sshd_config" >"$root/etc/ssh/sshd_config"
  install -m 600 "$LAB_STATE/ssh/$host" "$root/etc/ssh/ssh_host_ed25519_key"
  install -d -m 700 "$root/root/.ssh"
  install -m 600 "$LAB_STATE/ssh/client.pub" "$root/root/.ssh/authorized_keys"
  mkdir -p "$root/run/sshd" "$root/run/lock"
}

# names_file ADDRESS_FUNCTION: a hosts file that names each host by its address in one network.
names_file() {
  local host
  echo "127.0.0.1 localhost"
  for host in "${ALL_HOSTS[@]}"; do
    echo "$("$1" "$host") $(hostname_of "$host")"
  done
}

host_start_daemons() {
  local host=$1
  wait_until 20 test -e "$(host_dir "$host")/run/booted" || die "host $host did not finish starting; see $(host_dir "$host")/boot.log"
  host_daemon_runs "$host" sshd /run/sshd.pid || host_exec "$host" /usr/sbin/sshd
  host_daemon_runs "$host" libvirtd /run/libvirtd.pid ||
    host_exec "$host" /usr/sbin/libvirtd --daemon --listen --pid-file /run/libvirtd.pid >>"$(host_dir "$host")/run/libvirtd.log" 2>&1
}

# host_daemon_runs HOST NAME PIDFILE: asked on the host, whose pids they are.
host_daemon_runs() {
  host_exec "$1" sh -c '[ -s "$2" ] && [ "$(cat "/proc/$(cat "$2")/comm" 2>/dev/null)" = "$1" ]' sh "$2" "$3"
}

host_answers() {
  host_daemon_runs "$1" sshd /run/sshd.pid && host_exec "$1" virsh -q list
}

# host_exec HOST CMD...: in all namespaces of a host, descriptors of the lab left behind.
host_exec() {
  local pid
  pid=$(host_process "$1") || die "host $1 is not running; run: lab up"
  shift
  nsenter --target "$pid" --mount --uts --net --pid --root --wd -- \
    /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" "$@" 9>&-
}

host_command() {
  need_root
  need_host "${1:-}"
  (($# > 1)) || die "usage: lab host HOST CMD..."
  host_exec "$@"
}
