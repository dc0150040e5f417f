# shellcheck shell=bash
# Open vSwitch on a host, with its datapath in user space: the machine's kernel may have no module of it. Its programs are no
# part of the root file systems; they are unpacked from this machine's packages once, into the cache.

OVS_PACKAGES=(openvswitch-common openvswitch-switch libunbound8 libxdp1 libbpf1 libevent-2.1-7)

ovs_command() {
  need_root
  need_host "${1:-}"
  case ${2:-} in
    up)
      cache_locked ovs_unpack
      host_exec "$1" bash -euc "$OVS_UP" ovs "/lab/cache/$(basename "$(ovs_path)")" ||
        die "Open vSwitch does not start on host $1"
      # In user space nobody completes the check sums that a virtual cable leaves to hardware.
      ip netns exec "$(netns_of "$OPERATOR")" chroot "$(root_path "$OLDEST_SUITE")" ethtool -K business tx off >/dev/null
      ;;
    off) host_exec "$1" bash -c "$OVS_OFF" ;;
    *) die "usage: lab ovs HOST up|off" ;;
  esac
}

ovs_path() { echo "$LAB_CACHE/ovs-$(printf '%s\n' "${OVS_PACKAGES[@]}" | hash_of)"; }

ovs_unpack() {
  local part package
  [[ ! -d $(ovs_path) ]] || return 0
  part=$(ovs_path).part
  mkdir -p "$part"
  (cd "$part" && apt-get -qq download "${OVS_PACKAGES[@]}") || die "apt-get cannot download ${OVS_PACKAGES[*]}"
  for package in "$part"/*.deb; do dpkg -x "$package" "$part"; done
  rm "$part"/*.deb
  mv "$part" "$(ovs_path)"
}

# The bridge ovs0 takes the cable of the business network.
OVS_UP='
tar -C "$1" -c usr | tar -C / -x --keep-directory-symlink
mkdir -p /run/openvswitch
cd /run/openvswitch
[ -e conf.db ] || ovsdb-tool create conf.db /usr/share/openvswitch/vswitch.ovsschema
[ -e ovsdb-server.pid ] || ovsdb-server conf.db --remote=punix:db.sock --pidfile --detach --log-file=/dev/null
ovs-vsctl --no-wait init
[ -e ovs-vswitchd.pid ] || /usr/lib/openvswitch-switch/ovs-vswitchd --pidfile --detach --log-file=/dev/null
ip link set biz0 nomaster
ovs-vsctl --may-exist add-br ovs0 -- set Bridge ovs0 datapath_type=netdev
ovs-vsctl --may-exist add-port ovs0 biz0
ip link set ovs0 up
'

OVS_OFF='
ovs-vsctl --timeout=10 --if-exists del-br ovs0
cd /run/openvswitch && kill $(cat ovs-vswitchd.pid ovsdb-server.pid)
ip link set biz0 master br0
'
