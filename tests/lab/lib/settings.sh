# shellcheck shell=bash disable=SC2034
# Settings of the lab. An additional host is one more word in FURTHER_HOSTS and one entry in each table.

LAB_CACHE=${VMGATE_LAB_CACHE:-${HOME:-/root}/.cache/vmgate-lab}
# A second lab beside the first: its own namespaces and state, the same cache and addresses.
LAB_NAME=${VMGATE_LAB_NAME:-}
LAB_STATE=${VMGATE_LAB_STATE:-/run/vmgate-lab${LAB_NAME:+-$LAB_NAME}}

HOSTS=(a b)         # those that `lab up` starts
FURTHER_HOSTS=(c d) # those that it starts only when they are named, since each costs memory and time
ALL_HOSTS=("${HOSTS[@]}" "${FURTHER_HOSTS[@]}")
declare -A HOST_SUITE=([a]=bookworm [b]=trixie [c]=trixie [d]=trixie-backports)
declare -A HOST_NUMBER=([a]=1 [b]=2 [c]=3 [d]=4)
OLDEST_SUITE=bookworm # guests are made of this one, so that every host can run them

# Packages that vmgate and its rules look for on a host, in addition to libvirt and QEMU.
HOST_PACKAGES=(libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86
  ovmf swtpm swtpm-tools dnsmasq-base iptables iproute2 openssh-server procps ethtool iputils-ping tini)
# What bookworm has inside libvirt-daemon and qemu-system-common.
declare -A SUITE_PACKAGES=([trixie]="libvirt-daemon-driver-network libvirt-daemon-driver-nwfilter
  libvirt-daemon-driver-secret libvirt-daemon-driver-storage virtiofsd")
# What a suite called *-backports takes newer than its base has it, and the versions. Backports keeps no older ones: once it
# has moved on, building says so, and these versions want raising.
BACKPORTED_SOURCES=(qemu libvirt seabios)
BACKPORTED_PACKAGES=('qemu-system-x86=1:11.1.*' 'libvirt-daemon=12.9.*')
GUEST_PACKAGES=(busybox-static qemu-guest-agent kmod)
GUEST_KERNEL=linux-image-cloud-amd64

OPERATOR=op
MIGRATION_NET=10.77.1
BUSINESS_NET=10.77.2
MANAGEMENT_NET=10.77.3
BUSINESS_GATEWAY=$BUSINESS_NET.254
OPERATOR_ADDRESS=$MANAGEMENT_NET.100
FIRST_GUEST=10 # last byte of the first guest's address; hosts stay below

netns_of() { echo "vmgate${LAB_NAME:+-$LAB_NAME}-$1"; }
hostname_of() { echo "lab-$1"; }
migration_address() { echo "$MIGRATION_NET.${HOST_NUMBER[$1]}"; }
business_address() { echo "$BUSINESS_NET.${HOST_NUMBER[$1]}"; }
management_address() { echo "$MANAGEMENT_NET.${HOST_NUMBER[$1]}"; }
host_dir() { echo "$LAB_STATE/hosts/$1"; }

# The same name always gives the same UUID, so that a rebuilt lab is the same lab.
uuid_of() {
  local h
  h=$(printf 'vmgate-lab %s' "$1" | sha256sum)
  echo "${h:0:8}-${h:8:4}-4${h:13:3}-8${h:17:3}-${h:20:12}"
}

is_host() { [[ -n ${1:-} && -n ${HOST_SUITE[$1]:-} ]]; }

need_host() {
  is_host "${1:-}" || die "'${1:-}' is not a host of the lab; the hosts are: ${ALL_HOSTS[*]}"
}
