"""A training in a real Jupyter kernel: its progress bar, its stop button, and how it goes on."""

import queue
import time

import pytest

pytestmark = pytest.mark.slow
START = "import vae_cli; run = vae_cli.train('epochs=500', 'latent_dim=2', 'report=false', directory='run')"


def messages(client, until, seconds=60):
    """Return what a cell prints and the errors it raises, until a text of them ends with `until`."""
    texts, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            message = client.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            texts.append((content["name"], content["text"]))
        elif message["msg_type"] == "error":
            texts.append((content["ename"], content["evalue"]))
        if any(until in text for _, text in texts):
            return texts
    raise AssertionError(f"{until!r} did not come: {texts[-5:]}")


@pytest.fixture
def kernel(tmp_path):
    manager = pytest.importorskip("jupyter_client.manager")
    started, client = manager.start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    yield started, client
    client.stop_channels()
    started.shutdown_kernel(now=True)


def test_the_stop_button_ends_a_training_that_can_go_on(kernel, tmp_path):
    manager, client = kernel
    client.execute(START)
    shown = messages(client, "to go, elbo")  # of the bar, on the stream of the log
    assert {name for name, _ in shown} == {"stdout"} and any(text.startswith("\r") for _, text in shown)
    manager.interrupt_kernel()
    (*_, error) = messages(client, f"vae_cli.train(resume='{tmp_path / 'run'}') goes on")
    assert error[0] == "KeyboardInterrupt"
    time.sleep(2)  # the kernel drops what is asked of it while a cell fails
    client.execute("run = vae_cli.train('epochs=500', resume='run')")
    assert any("resumed     after epoch" in text for _, text in messages(client, "resumed"))
