# shellcheck shell=bash
# A host whose libvirtd accepts TLS, with certificates that the caller made. libvirtd's own check of them is switched off, so
# that clients can also be shown an untrustworthy one.

tls_command() {
  need_root
  need_host "${1:-}"
  (($# == 2)) || die "usage: lab tls HOST DIR|off"
  local host=$1 conf=/etc/libvirt/libvirtd.conf
  if [[ $2 == off ]]; then
    host_exec "$host" sh -c 'rm -rf /etc/pki/CA /etc/pki/libvirt; sed -i "/^tls_no_/d; s/^listen_tls.*/listen_tls = 0/" "$1"' sh "$conf"
  else
    tls_put "$host" "$2/cacert.pem" /etc/pki/CA/cacert.pem
    tls_put "$host" "$2/servercert.pem" /etc/pki/libvirt/servercert.pem
    tls_put "$host" "$2/serverkey.pem" /etc/pki/libvirt/private/serverkey.pem
    host_exec "$host" sh -c 'sed -i "/^tls_no_/d; s/^listen_tls.*/listen_tls = 1/" "$1"
      echo "tls_no_sanity_certificate = 1" >>"$1"' sh "$conf"
  fi
  # Guests outlive their libvirtd.
  host_exec "$host" sh -c 'kill $(cat /run/libvirtd.pid)'
  wait_until 10 tls_libvirtd_gone "$host" || die "libvirtd of host $host does not end"
  host_start_daemons "$host"
  wait_until 30 host_answers "$host" || die "libvirtd of host $host does not answer; its log: $(host_dir "$host")/run/libvirtd.log"
}

tls_libvirtd_gone() { ! host_daemon_runs "$1" libvirtd /run/libvirtd.pid; }

# tls_put HOST FILE PATH
tls_put() {
  [[ -r $2 ]] || die "there is no $2"
  host_exec "$1" sh -c 'mkdir -p "$(dirname "$1")" && cat >"$1"' sh "$3" <"$2"
}
