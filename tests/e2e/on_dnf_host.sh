# Makes a Debian host one that dnf manages as well, with an archive of stand-ins for NVIDIA's packages; in it are the
# versions that are given. The packages are empty; names, epochs, revisions and dependencies are as NVIDIA's.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq --yes --no-install-recommends dnf dnf-plugins-core createrepo-c rpm > /dev/null
sed -i 's/^enabled *=.*/enabled = false/' /etc/dnf/plugins/local.conf # Debian's own, which looks for another archive
stand_in() { # name, version, release, epoch, what it requires
  cat > "/tmp/$1.spec" <<S
Name: $1
Version: $2
Release: $3
${4:+Epoch: $4}
Summary: Stand-in for $1
License: none
BuildArch: noarch
${5:+Requires: $5}
%description
Stand-in for $1
%files
S
  rpmbuild -bb --quiet --define '_rpmdir /srv/rpms' "/tmp/$1.spec"
}
mkdir -p /srv/rpms
for version in "$@"; do
  stand_in nvidia-driver-cuda "$version" 1.el9 3 nvidia-driver-cuda-libs
  stand_in nvidia-driver-cuda-libs "$version" 1.el9 3
  for name in kmod-nvidia-open-dkms nvidia-persistenced nvidia-modprobe; do stand_in "$name" "$version" 1.el9 3; done
  for name in nvidia-fabricmanager libnvidia-nscq; do stand_in "$name" "$version" 1 ''; done
  stand_in nvidia-container-toolkit "1.19.${version##*.}" 1 ''
done
createrepo_c --quiet /srv/rpms
mkdir -p /etc/yum.repos.d
printf '[rackllama-nvidia]\nname=Stand-ins\nbaseurl=file:///srv/rpms\ngpgcheck=0\nmodule_hotfixes=1\n' \
  > /etc/yum.repos.d/rackllama-nvidia.repo
echo 'kernel-0:5.14.0-503.el9.*' > /etc/dnf/plugins/versionlock.list
