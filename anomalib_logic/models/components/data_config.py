from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


def input_normalization(backbone=None, backbone_args=None):
    return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
