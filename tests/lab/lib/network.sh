# shellcheck shell=bash
# Namespaces and links. Every step may find its work done already, and then changes nothing.
#
#   mig0   migration: each host, by a switch that the operator has no address on
#   br0    business: a bridge on each host for the guests' taps; its port biz0 leads to a switch at the operator's
#   mgmt0  management: each host, and the operator at .100
#
# The switches are bridges in the operator's namespace, so that a further host is one more port: mig-a, biz-a, mgmt-a.

network_up() {
  local host
  for host in "${HOSTS[@]}" "$OPERATOR"; do
    netns_create "$(netns_of "$host")"
  done
  network_switch migration
  network_switch business "$BUSINESS_GATEWAY/24"
  network_switch mgmt0 "$OPERATOR_ADDRESS/24"
  for host in "${HOSTS[@]}"; do
    network_migration "$host"
    network_business "$host"
    network_management "$host"
  done
}

network_down() {
  local name
  for name in "${ALL_HOSTS[@]}" "$OPERATOR"; do
    name=$(netns_of "$name")
    [[ -e /run/netns/$name ]] || continue
    netns_stop_processes "$name"
    ip netns delete "$name" || die "cannot delete the network namespace $name; see what is in it: ip netns pids $name"
    rm -rf "/etc/netns/$name"
  done
  rmdir /etc/netns 2>/dev/null || true
}

# A file of that name without a namespace behind it is what an interrupted `ip netns add` leaves.
netns_create() {
  if [[ -e /run/netns/$1 ]] && ! ip netns exec "$1" true 2>/dev/null; then
    umount "/run/netns/$1" 2>/dev/null || true
    rm -f "/run/netns/$1"
  fi
  [[ -e /run/netns/$1 ]] || ip netns add "$1"
  ip -n "$1" link set lo up
}

# Whatever still runs in a namespace of the lab was started through the lab.
netns_stop_processes() {
  local pids
  pids=$(ip netns pids "$1" 2>/dev/null || true)
  [[ -n $pids ]] || return 0
  # shellcheck disable=SC2086 # a list of pids
  kill $pids 2>/dev/null || true
  wait_until 3 netns_empty "$1" && return 0
  # shellcheck disable=SC2046
  kill -KILL $(ip netns pids "$1") 2>/dev/null || true
  wait_until 10 netns_empty "$1" || die "processes in $1 do not go away: ip netns pids $1"
}

netns_empty() { [[ -z $(ip netns pids "$1") ]]; }

link_exists() { [[ -n $(ip -n "$1" -o link show dev "$2" 2>/dev/null) ]]; }

# network_switch BRIDGE [ADDRESS]: in the operator's namespace.
network_switch() {
  local ns
  ns=$(netns_of "$OPERATOR")
  link_exists "$ns" "$1" || ip -n "$ns" link add "$1" type bridge stp_state 0 forward_delay 0
  if [[ -n ${2:-} ]]; then link_address "$ns" "$1" "$2"; else ip -n "$ns" link set "$1" up; fi
}

# link_address NETNS LINK ADDRESS: sets it up too.
link_address() {
  ip -n "$1" addr replace "$3" dev "$2"
  ip -n "$1" link set "$2" up
}

network_migration() {
  local ns
  ns=$(netns_of "$1")
  network_port "$ns" mig0 "mig-$1" migration
  link_address "$ns" mig0 "$(migration_address "$1")/24"
}

network_business() {
  local ns
  ns=$(netns_of "$1")
  # An address of its own: otherwise it takes its ports' lowest, and changes when a guest comes or goes.
  link_exists "$ns" br0 ||
    ip -n "$ns" link add br0 address "02:77:02:00:00:0${HOST_NUMBER[$1]}" type bridge stp_state 0 forward_delay 0
  network_port "$ns" biz0 "biz-$1" business
  ip -n "$ns" link set biz0 master br0 up
  link_address "$ns" br0 "$(business_address "$1")/24"
  ip -n "$ns" route replace default via "$BUSINESS_GATEWAY" dev br0
}

network_management() {
  local ns
  ns=$(netns_of "$1")
  network_port "$ns" mgmt0 "mgmt-$1" mgmt0
  link_address "$ns" mgmt0 "$(management_address "$1")/24"
}

# network_port NETNS LINK PORT SWITCH: a cable from a host to a switch.
network_port() {
  local switch_ns
  switch_ns=$(netns_of "$OPERATOR")
  link_exists "$1" "$2" || ip -n "$1" link add "$2" type veth peer name "$3" netns "$switch_ns"
  link_exists "$switch_ns" "$3" || die "$2 in $1 leads to no switch: an older lab made it; run: lab down, then lab up"
  ip -n "$switch_ns" link set "$3" master "$4" up
}

network_link_command() {
  [[ ${1:-} == rate && $# -eq 2 ]] || die "usage: lab link rate RATE|off (RATE as tc writes it: 200mbit)"
  need_root
  local host ns
  for host in "${ALL_HOSTS[@]}"; do
    host_process "$host" >/dev/null || continue
    ns=$(netns_of "$host")
    link_exists "$ns" mig0 || die "there is no mig0 in $ns; run: lab up"
    if [[ $2 == off ]]; then
      tc -n "$ns" qdisc delete dev mig0 root 2>/dev/null || true
    else
      tc -n "$ns" qdisc replace dev mig0 root tbf rate "$2" burst 256kb latency 50ms ||
        die "tc does not take the rate '$2' for mig0 in $ns"
    fi
  done
}

# Only nft's table of the lab is changed. reject sends an ICMP answer; drop sends none.
network_firewall_command() {
  local ns
  need_root
  need_host "${1:-}"
  [[ ${2:-} =~ ^(drop|reject|off)$ && $# -eq 2 ]] || die "usage: lab firewall HOST drop|reject|off"
  ns=$(netns_of "$1")
  ip netns exec "$ns" nft delete table inet lab 2>/dev/null || true
  [[ $2 != off ]] || return 0
  ip netns exec "$ns" nft -f - <<TEXT || die "nft does not take the rule in $ns"
table inet lab {
  chain input {
    type filter hook input priority 0; policy accept;
    tcp dport 49152-49215 $([[ $2 == drop ]] && echo drop || echo 'reject with tcp reset')
  }
}
TEXT
}
