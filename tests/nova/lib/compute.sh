# shellcheck shell=bash
# The computes: hosts of the lab, with nova-compute.

computes_up() {
  local host
  for host in "${COMPUTES[@]}"; do
    host_boot "$host"
    compute_start "$host"
  done
  wait_until 120 computes_are_up || die "not both computes are up; logs: nova host a tail /var/log/lab/nova-compute.log"
}

compute_start() {
  if ! service_runs "$1" nova-compute; then compute_configure "$1"; fi
  host_start_daemons "$1"
  wait_until 60 host_answers "$1" || die "libvirtd or sshd of host $1 does not answer; its log: $(host_dir "$1")/run/libvirtd.log"
  service_start "$1" nova-compute
}

# The instances' folder is one folder of the machine. libvirt goes by the type of a file system to tell whether it is shared,
# so it is mounted once more, under a type that libvirt knows as shared.
compute_configure() {
  local host=$1
  host_template "$host" /etc/nova/nova.conf nova.conf
  # shellcheck disable=SC2016
  host_exec "$host" sh -ec '
    test -e /dev/fuse || mknod -m 666 /dev/fuse c 10 229
    install -d -o nova -g nova /run/lock/nova /lab/guests/instances /var/lib/nova/instances
    mountpoint -q /var/lib/nova/instances || bindfs -o subtype=glusterfs,allow_other,default_permissions,attr_timeout=0,entry_timeout=0,negative_timeout=0 \
      /lab/guests/instances /var/lib/nova/instances
    chown nova:nova /var/lib/nova/instances
    # Nova makes the disks as its own user; libvirt hands them to that of QEMU.
    sed -i "s/^dynamic_ownership.*/dynamic_ownership = 1/" /etc/libvirt/qemu.conf
    sed -i "/^unix_sock_/d" /etc/libvirt/libvirtd.conf'
  # shellcheck disable=SC2016
  host_exec "$host" sh -c 'cat >>/etc/libvirt/libvirtd.conf' <"$NOVA_DIR/etc/libvirtd.conf"
}
