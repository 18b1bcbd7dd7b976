"""The files of published ticket codes, by format; ``load`` imports torch, so import it lazily."""
