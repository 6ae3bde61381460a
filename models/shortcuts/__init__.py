"""The shortcut probe: does anything but the breast give the label away?"""
