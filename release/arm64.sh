#!/usr/bin/env bash
# The wheel for arm64 made on x86-64: cross-compiled into a folder, then tried under qemu.    release/arm64.sh dist
#
# Runs on Debian 12 with g++-aarch64-linux-gnu and qemu-user-static; Python and libraries for arm64 come from Debian and PyPI into
# build/arm64, half a gigabyte. The tests that hold the C++ kernels to float64 are run, less the one that limits a process's memory, which
# qemu does not; the release workflow runs all of them on arm64 itself.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "$1")
python=$(realpath -s .venv/bin/python)
sdk=$PWD/build/arm64
for tool in aarch64-linux-gnu-g++ qemu-aarch64-static apt-get; do
    command -v $tool >/dev/null || { echo "release/arm64.sh needs $tool (Debian: g++-aarch64-linux-gnu, qemu-user-static)" >&2; exit 1; }
done

if [ ! -e "$sdk/made" ]; then
    rm -rf "$sdk" && mkdir -p "$sdk"/{site,root,debs/partial,lists/partial}
    "$python" -m pip --disable-pip-version-check --quiet install --target "$sdk/site" --python-version 3.11 --only-binary=:all: \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 --no-deps \
        torch==2.10.0 filelock fsspec jinja2 markupsafe networkx sympy mpmath typing_extensions numpy \
        hypothesis attrs sortedcontainers pytest iniconfig packaging pluggy pygments  # pip would ask this machine's kind what they need
    apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::Lists="$sdk/lists"
        -o Dir::State::status=/dev/null -o Dir::Cache::Archives="$sdk/debs" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Debug::NoLocking=1)
    "${apt[@]}" update
    "${apt[@]}" install --download-only --no-install-recommends -y python3.11 libstdc++6 libgomp1
    for deb in "$sdk"/debs/*.deb; do dpkg-deb -x "$deb" "$sdk/root"; done
    touch "$sdk/made"
fi

"$python" release/build.py "$out" --cross "aarch64=$sdk/site"

rm -rf "$sdk/try" && mkdir "$sdk/try"
"$python" -m zipfile -e "$out"/pare_kernels-*_aarch64.whl "$sdk/try"
cp -R setup.py pyproject.toml csrc tests benchmarks "$sdk/try"
cd "$sdk/try"
cat > "$sdk/python" <<END
#!/bin/sh
# Python for arm64; named by -0, it is also what Python starts as another Python.
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 PYTHONHOME="$sdk/root/usr" PYTHONPATH="$sdk/site:$sdk/try"
exec qemu-aarch64-static -0 "$sdk/python" -L "$sdk/root" "$sdk/root/usr/bin/python3.11" "\$@"
END
chmod +x "$sdk/python"
"$sdk/python" -c "import platform, torch; from pare_kernels import report
print(platform.machine(), 'Python', platform.python_version(), 'torch', torch.__version__, report.backends()['patch_replace']['CPU'])"
"$sdk/python" -m pytest -q -p no:cacheprovider tests/pare_kernels/test_backends.py -k "not out_of_memory"
