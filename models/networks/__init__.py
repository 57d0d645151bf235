"""Networks: plain torch modules with explicit arguments."""
