# shellcheck shell=bash
# Guests of kind kvm: a bare-metal program (guest-kvm/) under hardware virtualisation, where /dev/kvm works. The platform may
# run no stock kernel: this guest needs neither long mode nor interrupts.

KVM_HEARTBEAT_PORT=9911 # at the operator's, a byte every 5 ms

# Where nobody listens to the heartbeats the operator says nothing: an ICMP error wakes QEMU's main loop, which then waits for
# good in a read of the serial line's socket.
kvm_mute_operator() {
  local ns
  ns=$(netns_of "$OPERATOR")
  ip netns exec "$ns" nft -f - <<TEXT || die "nft does not take the rule in $ns"
table inet heartbeats
delete table inet heartbeats
table inet heartbeats {
  chain output {
    type filter hook output priority 0; policy accept;
    icmp type destination-unreachable icmp code port-unreachable drop
  }
}
TEXT
}

kvm_guest_path() { echo "$LAB_CACHE/guest-kvm-$(cat "$LAB_DIR"/guest-kvm/* | hash_of)"; }

kvm_guest_complete() { [[ -d $(kvm_guest_path) ]] || "${CONTAINED[@]}" "$LAB_DIR/lab" internal build_kvm_guest; }
internal_build_kvm_guest() { cache_build "$(kvm_guest_path)" kvm_guest_fill; }

kvm_guest_fill() {
  mkdir -p "$1"
  command -v gcc >/dev/null || die "the guest of kind kvm is built by gcc, which is not here; run: apt-get install gcc"
  gcc -m32 -O2 -ffreestanding -fno-pic -fno-stack-protector -nostdlib -mno-sse -static -Wall -Wextra -Werror \
    -Wl,-T,"$LAB_DIR/guest-kvm/guest.ld" -Wl,--build-id=none,--no-warn-rwx-segments -o "$1/guest.elf" "$LAB_DIR/guest-kvm/guest.c"
}

# The TSC's kHz, by which the guest tells time.
kvm_tsc_khz() { awk -F: '/^cpu MHz/ {printf "%d\n", $2 * 1000; exit}' /proc/cpuinfo; }

# kvm_guest_xml NAME MEMORY VCPUS MACHINE AGENT NIC IMAGE CMDLINE BACKING: as guest_xml
kvm_guest_xml() {
  cat <<XML
<domain type='kvm'>
  <name>$1</name>
  <uuid>$(uuid_of "guest $1")</uuid>
  <memory unit='MiB'>$2</memory>
  $(guest_backing_xml "$9")
  <vcpu>$3</vcpu>
  <os>
    <type arch='x86_64' machine='$4'>hvm</type>
    <kernel>$7/guest.elf</kernel>
    <cmdline>khz=$(kvm_tsc_khz) $8</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='allow'>qemu64</model></cpu>
  <clock offset='utc'/>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='/lab/guests/$1/console.log' append='on'/><target port='0'/></serial>
    <serial type='udp'>
      <source mode='connect' host='$BUSINESS_GATEWAY' service='$KVM_HEARTBEAT_PORT'/>
      <target port='1'/>
    </serial>
    <memballoon model='none'/>
  </devices>
</domain>
XML
}
