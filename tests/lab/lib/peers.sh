# shellcheck shell=bash
# Peers: further members of a cluster as processes of this machine, so that three members cost one emulated guest. Each has a network
# namespace with a port at the guests' switch, and the root file system of the larger guest image; its daemons are the guest's.

peer_command() {
  local command=${1:-} name=${2:-}
  need_root
  [[ $name =~ ^p[1-9]$ ]] || die "usage: lab peer start|exec|stop p1..p9 [CMD...]"
  shift 2
  case $command in
    start) peer_start "$name" ;;
    exec) peer_exec "$name" "$@" ;;
    stop) peer_stop "$name" ;;
    *) die "usage: lab peer start|exec|stop p1..p9 [CMD...]" ;;
  esac
}

peer_dir() { echo "$LAB_STATE/peers/$1"; }
peer_address() { echo "$BUSINESS_NET.20${1#p}"; }

peer_start() {
  local name=$1 dir ns
  dir=$(peer_dir "$name") ns=$(netns_of "$name")
  image_command software
  peer_stop "$name"
  mkdir -p "$dir"/{disk,memory}
  netns_create "$ns"
  network_port "$ns" eth0 "biz-$name" business
  link_address "$ns" eth0 "$(peer_address "$name")/24"
  ip -n "$ns" route replace default via "$BUSINESS_GATEWAY" dev eth0
  nsenter --net="/run/netns/$ns" setsid unshare --mount --uts --pid --fork "$LAB_DIR/lab" internal peer_boot "$name" \
    </dev/null >"$dir/boot.log" 2>&1 9>&- &
  disown
  wait_until 20 test -e "$dir/booted" || {
    cat "$dir/boot.log" >&2
    die "peer $name did not start"
  }
  peer_address "$name"
}

# Runs as the first process of the peer's namespaces.
internal_peer_boot() {
  local name=$1 dir root pid
  dir=$(peer_dir "$name") root=$dir/memory/root
  read -r pid _ </proc/self/stat
  record_process "$dir/init.pid" "$pid"
  mount --make-rprivate /
  mount -t ext4 -o loop,ro "$(software_path)/disk.img" "$dir/disk"
  mount -t tmpfs -o size=1g,mode=755 tmpfs "$dir/memory"
  mkdir "$dir"/memory/{upper,work,root}
  mount -t overlay -o "lowerdir=$dir/disk,upperdir=$dir/memory/upper,workdir=$dir/memory/work" overlay "$root"
  host_mount_kernel_files "$root"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  software_scripts "$root"
  hostname "$name"
  echo "$name" >"$root/etc/hostname"
  printf '127.0.0.1 localhost\n%s %s\n' "$(peer_address "$name")" "$name" >"$root/etc/hosts"
  printf '%s' "vmgate-lab-$name" | md5sum | cut -c1-32 >"$root/etc/machine-id"
  echo '::sysinit:/bin/true' >"$root/etc/inittab"
  touch "$dir/booted"
  cd "$root" || exit
  pivot_root . .
  umount -l .
  exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/busybox init
}

peer_exec() {
  local pid
  pid=$(recorded_process "$(peer_dir "$1")/init.pid") || die "peer $1 is not running"
  shift
  nsenter --target "$pid" --mount --uts --net --pid --root --wd -- \
    /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@" 9>&-
}

peer_stop() {
  local ns
  ns=$(netns_of "$1")
  stop_recorded "$(peer_dir "$1")/init.pid"
  [[ ! -e /run/netns/$ns ]] || {
    netns_stop_processes "$ns"
    # The cable first: a namespace's own links go only some time after it.
    ip -n "$(netns_of "$OPERATOR")" link delete "biz-$1" 2>/dev/null || true
    ip netns delete "$ns"
  }
  rm -rf --one-file-system "$(peer_dir "$1")"
}

peers_down() {
  local dir
  for dir in "$LAB_STATE"/peers/p*; do
    [[ ! -d $dir ]] || peer_stop "$(basename "$dir")"
  done
}
