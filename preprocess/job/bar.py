"""One progress bar over all workers, silent where nobody watches."""

from tqdm import tqdm


class Bar:
    """Images/s, time left, MB kept and rejects of `images` images. Those found finished do not count as speed."""

    def __init__(self, images: int) -> None:
        self._bar = tqdm(total=images, unit="images", disable=None, smoothing=0.05)
        self._bytes = 0
        self._rejects = 0

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, images: int, size: int, rejects: int, found: int) -> None:
        """Counts more images worked on, bytes written, images rejected, and images that were there already."""
        self._bytes += size
        self._rejects += rejects
        self._bar.set_postfix_str(f"{self._bytes / 1e6:,.0f} MB, {self._rejects} rejected", refresh=False)
        if found and not self._bar.disable:
            self._bar.initial += found
            self._bar.n += found
            self._bar.last_print_n += found
        self._bar.update(images)
