"""Figures of the MXFP4 study, a module each, called as the figure is."""
