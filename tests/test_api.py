"""What `import vae_cli` offers to Python code."""

import subprocess
import sys

import vae_cli


def test_importing_the_package_imports_neither_torch_nor_hydra():
    code = "import sys, vae_cli; print({'torch', 'hydra', 'numpy'} & {*sys.modules}, vae_cli.load.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set() load\n", done.stderr


def test_public_names_are_there_and_no_others():
    assert {*vae_cli.__all__} <= {*dir(vae_cli)}
    assert all(getattr(vae_cli, name) is not None for name in vae_cli.__all__)
    assert not hasattr(vae_cli, "sample_from")
