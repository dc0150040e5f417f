# shellcheck shell=bash disable=SC2034
# Settings of this lab, in place of those of tests/lab.

# A lab of another name: both can be up.
LAB_NAME=${VMGATE_LAB_NAME:+$VMGATE_LAB_NAME-}nova
LAB_STATE=/run/vmgate-lab-$LAB_NAME

COMPUTES=(a b)
HOSTS=(ctl "${COMPUTES[@]}")
ALL_HOSTS=("${HOSTS[@]}")
HOST_SUITE=([a]=nova [b]=nova [ctl]=control)
HOST_NUMBER=([a]=1 [b]=2 [ctl]=10)
CONTROL=$MANAGEMENT_NET.${HOST_NUMBER[ctl]}

HOST_PACKAGES+=(mariadb-server rabbitmq-server keystone placement-api glance-api nova-api nova-conductor nova-scheduler
  python3-openstackclient python3-libvirt qemu-utils bindfs fuse3 stunnel4)
