"""Which captions forbid a mirror image."""

from __future__ import annotations

import pytest

from rdtf.data.mirroring import is_flippable

# The last one is in a script that the list of words does not have.
FORBIDDEN = """
COOL button / backhand index pointing left / Right-facing fist / a cat turning clockwise / up arrows /
keycap # / flag in hole / eight o'clock / one-thirty / pool 8 ball / dog saying LOL / letter m /
mobile phone off / circled M / 第２名 / 向左的箭头 / 写着字的牌子 /
闹钟 / 红旗 / 一只猫看左边 / 左を見る猫 / みぎを向く犬 / 왼쪽을 보는 고양이 /
un gato mira a la izquierda / UN GATO / un chat regarde à gauche / eine Katze schaut nach links /
die linke Hand / gatto che guarda a destra / um gato olha para a direita / een kat kijkt naar rechts /
katt tittar åt vänster / kat kigger til højre / kissa katsoo vasemmalle / macska balra néz /
kot patrzy w lewo / kočka se dívá vpravo / pisica se uită la stânga / kedi sola bakıyor / mèo nhìn sang trái /
kucing melihat ke kiri / paka anaangalia kushoto / кошка смотрит налево / кіт дивиться праворуч /
котка гледа наляво / η γάτα κοιτάζει αριστερά / القطة تنظر إلى اليسار / גרבה ליד ימין /
گربه به چپ نگاه می‌کند / बिल्ली बाएँ देखती है / বিড়াল বামে তাকায় / பூனை இடது பக்கம் / แมวมองไปทางซ้าย /
კატა მარცხნივ იყურება / կատուն նայում է ձախ / a cat 👉 / a cat ➡️ / КОТ / ꦏꦸꦕꦶꦁ
"""
ALLOWED = """
waving hand / a bright red cat jumps / I love you / A dog / flagpole eel / 一只红色的猫在跳 / ein Hund winkt /
un chat qui saute / кошка прыгает / 猫がジャンプする / 고양이가 뛰어요 / قطة تقفز / un perro feliz ❤️
"""


@pytest.mark.parametrize("caption", [text.strip() for text in FORBIDDEN.split("/")])
def test_captions_that_forbid_a_mirror_image(caption: str) -> None:
    assert not is_flippable(caption)


@pytest.mark.parametrize("caption", ["", *(text.strip() for text in ALLOWED.split("/"))])
def test_captions_that_allow_it(caption: str) -> None:
    assert is_flippable(caption)
