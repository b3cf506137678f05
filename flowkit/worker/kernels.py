"""Which kernels this machine can start."""

from __future__ import annotations

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel

from flowkit.errors import SetupError, did_you_mean

#: The kernel of a notebook that names none.
DEFAULT = "python3"


def find(name: str | None) -> KernelSpec:
    """How to start the kernel of that name; None is the default. Raises SetupError, naming those there are."""
    name = name or DEFAULT
    specs = KernelSpecManager()
    try:
        return specs.get_kernel_spec(name)
    except NoSuchKernel:
        installed = sorted(specs.find_kernel_specs())
        known = ", ".join(installed) or "none: pip install ipykernel"
        hint = did_you_mean(name, installed)
        raise SetupError(f"no kernel named {name!r}; installed are {known}{hint}") from None
    except Exception as error:  # a kernel.json may hold anything
        raise SetupError(f"kernel {name!r} is broken: its kernel.json cannot be read: {error}") from error
