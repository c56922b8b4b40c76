"""Networks that were designed by hand for one kind of data each: the specialists of NAS-Bench-360 (Tu et al., NeurIPS 2022)."""

from crossmodal.models.hand_designed.attention import AttentionNetwork
from crossmodal.models.hand_designed.deepcr import DeepCR
from crossmodal.models.hand_designed.deepsea import DeepSEA
from crossmodal.models.hand_designed.densenet import DenseNet
from crossmodal.models.hand_designed.pdnet import PDNet
from crossmodal.models.hand_designed.resnet1d import ResNet1D
from crossmodal.models.hand_designed.s2cnn import S2CNN
from crossmodal.models.hand_designed.vgg import VGG

__all__ = ["S2CNN", "VGG", "AttentionNetwork", "DeepCR", "DeepSEA", "DenseNet", "PDNet", "ResNet1D"]
